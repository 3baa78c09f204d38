"""Images are decoded in processes of their own: few, long-lived, with limits of memory and time, and with no files.

    the process that wants originals          transfer.decoders.pool
     +- forker                                transfer.decoders.forker    loads the libraries, decodes nothing
         +- child, child, ...                 transfer.decoders.child     one strip after the other

The libraries that decode strips are written in C and C++, and what they are given is what a peer made. A fault in one
ends a child that holds no key, no file and no connection; the object that did it is refused as `corrupt`, and the next
one has a new child. Containers and zstd stay where they were: Python, and a library whose output and window are
bounded. Refuses to do: encoding, hashing (whoever wants an original compares its id himself, and believes no child).
Imports nothing, so that the forker loads no more than it needs.
Decision and figures: docs/decisions/0007-decoding-apart.md.
"""
