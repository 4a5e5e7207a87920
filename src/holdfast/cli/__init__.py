"""The command `holdfast`: a store looked at, copied from and into, and pruned from a shell."""

from holdfast.cli.commands import ls, pin, prune, pull, push, show, sweep, unpin, verify, wait
from holdfast.cli.doctor import doctor
from holdfast.cli.frame import group

main = group(ls, show, verify, pull, push, wait, prune, pin, unpin, sweep, doctor)
