"""The pager: the pair of programs that moves memory pages, the page source and the page sink.

Ours is the default: the source reads the frozen tree's memory, the sink fills it in by userfaultfd, faults
first. CRIU's page server and lazy-pages daemon can be chosen instead (`pager = "criu"`). Both run over TLS
links of the cluster, and both are guarded against what CRIU's programs are not:

- a page server that sees a clean end kills the source tree, so only the sink's word ends it;
- closed userfaultfds turn missing pages into zeros, so the sink keeps them open until the memory is complete
  or the tree is dead.
"""
