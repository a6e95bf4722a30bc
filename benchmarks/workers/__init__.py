"""One module for each framework: it builds the network its own way; `protocol` serves it to the driver."""
