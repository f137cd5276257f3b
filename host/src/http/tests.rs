//! The server over real sockets. Kinds that answer are tested where the whole host runs; here are the edges.
