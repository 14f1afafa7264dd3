"""Moves containers: facts about hosts, target choice, plan, protocol, pager, runtimes, network.

`watchdog` imports this package; this package never imports `watchdog`.
"""
