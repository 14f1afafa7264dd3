"""The pager: the pair of programs that moves memory pages, the page source and the page sink.

This first pager is CRIU's own: its page server on the source, its lazy-pages daemon on the target, joined
by a mutually authenticated TLS link between our two programs, which guard what CRIU does not:

- a page server that sees a clean end kills the source tree, so only the sink's word ends it;
- a lazy-pages daemon that dies closes its userfaultfds, and missing pages would read as zeros, so the
  sink keeps its own copies of them open until the memory is complete or the tree is dead.
"""
