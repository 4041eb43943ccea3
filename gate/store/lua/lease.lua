-- kind, now, the end of the leases; then lanes, each with how many subjects at most.
local kind, now, ends = take(), take(), take()
local leases = {}
while left() do
  local lane, most = take(), tonumber(take())
  local seen = {}
  local due = key('due', kind, lane)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, most)) do
    local subject = redis.call('HGET', key('job', kind, id), 'subject')
    if not seen[subject] then
      seen[subject] = true
      lease(kind, subject, now, ends, leases)
    end
  end
end
return leases
