"""The data path of a link: conditions, faults, sockets."""
