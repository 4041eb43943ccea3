-- kind, subject, now, the end of the leases.
local kind, subject, now, ends = take(), take(), take(), take()
local leases = {}
lease(kind, subject, now, ends, leases)
return leases
