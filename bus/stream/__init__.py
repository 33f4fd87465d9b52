"""A stream of frames, without sockets: numbering, mirrors, and the reader's state machine. Pure."""
