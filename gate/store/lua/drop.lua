-- Seconds to tell of it, then records: they are deleted, and other processes are told.
local told = tonumber(take())
local clock = redis.call('TIME')
while left() do
  local record = take()
  redis.call('DEL', key('r', record))
  redis.call('XADD', key('gone'), '*', 'key', record)
end
redis.call('XTRIM', key('gone'), 'MINID', string.format('%.0f', (clock[1] - told) * 1000))
redis.call('EXPIRE', key('gone'), 2 * told)
return redis.status_reply('OK')
