-- kind, now, then the lanes that there are. How many were buried; so many at once, and more the
-- next time.
local kind, now = take(), take()
local buried, wanted = 0, {}
while left() do
  wanted[take()] = true
end
local old = redis.call('ZRANGEBYSCORE', key('expires', kind), '-inf', now, 'LIMIT', 0, AT_ONCE)
for _, id in ipairs(old) do
  bury(kind, id, EXPIRED)
  buried = buried + 1
end
for _, lane in ipairs(redis.call('SMEMBERS', key('lanes', kind))) do
  if not wanted[lane] then
    for _, id in ipairs(redis.call('ZRANGE', key('due', kind, lane), 0, AT_ONCE - 1)) do
      bury(kind, id, UNKNOWN_LANE)
      buried = buried + 1
    end
    if redis.call('EXISTS', key('due', kind, lane)) == 0 then
      redis.call('SREM', key('lanes', kind), lane)
    end
  end
end
old = redis.call('ZRANGEBYSCORE', key('forgotten', kind), '-inf', now, 'LIMIT', 0, AT_ONCE)
for _, id in ipairs(old) do
  remove(kind, id)
end
return buried
