"""A policy file to begin with: every kind of condition, commented out. `lifeboat policy new`."""

SAMPLE = """\
# A policy: rules by which lifeboatd judges this host. Put it into /etc/lifeboat/policies/ under a name of its
# own; a file of the name of a shipped one replaces that one, and a link to /dev/null removes it.
# `lifeboat policy check FILE` names every error, `lifeboat policy try --policy FILE OUTPUT...` tries it on recorded
# output, `lifeboat policy replay --policy FILE` on what this host has told so far. All keys: lifeboat-policy(5).

[[rule]]
id = "my-disk-temperature"              # unique; alerts show it
signal = "smart.temperature"            # one of: lifeboat signals --catalog
where = { type = ["hdd", "ssd"] }       # only such devices; also name, serial, model, with * in them
at_least = "55 C"                       # the condition; the unit may be left out
clear_at = "50 C"                       # once fired, it clears below this
readings = 3                            # it must hold in three successive readings
for = "10m"                             # and for ten minutes
verdict = "suspect"                     # or "failing": then the host is emptied
lead = "days"                           # how long such a host usually lasts: days, minutes, seconds
affects = "storage"                     # what is lost with the device; or "host"
mode = "alert"                          # or "act": count for the verdict; or "record": only show it
why = "the drive is hotter than it should be in our racks"
source = "our own rule"

# Other conditions, one for each rule, or several as [[rule.when]]:
#
# is_set = true                         # a flag is set
# at_most = 5                           # the value is this or less
# grows_by = 10                         # it grew by ten
# within = "24h"                        # in this time
# rate_at_least = 100                   # it grows by 100
# per = "1m"                            # every minute,
# within = "10m"                        # on average over ten minutes
# will_reach = 100                      # going on as it went
# within = "30d"                        # in thirty days,
# ahead = "90d"                         # it reaches 100 in the next ninety
# changes = "down"                      # it changed (any, up, down)
# within = "24h"
# blind_for = "6h"                      # it could not be read for six hours

# [[rule]]
# id = "my-two-signs"
# needs = 2                             # of the conditions below; or "all", "any"
# on = "device"                         # on the same device; or "host": anywhere
# verdict = "failing"
# why = "two signs at once"
#
# [[rule.when]]
# signal = "smart.reallocated_sectors"
# grows_by = 1
# within = "7d"
#
# [[rule.when]]
# signal = "smart.pending_sectors"
# at_least = 1

# [[rule]]
# id = "my-script"                      # [[signals.script]] in lifeboat.toml names the program
# signal = "script.problem"
# where = { script = "check-coolant" }
# is_set = true
# readings = 2
# verdict = "failing"
# lead = "minutes"
# why = "the coolant's pressure is gone"

# [[window]]                            # meanwhile these rules do less, but are judged all the same
# name = "raid-check"
# days = ["sun"]
# start = "01:00"                       # local time
# end = "06:00"
# rules = ["disk-*", "array-*"]
# mode = "record"
# why = "the monthly check reads every sector"
"""
