-- key, value with its expiry in front, now, milliseconds to keep it. Who has it, if somebody does.
local claim, value, now, lasts = key('c', take()), take(), take(), take()
local held = redis.call('GET', claim)
if held and struct.unpack('<d', held) > tonumber(now) then
  return held
end
redis.call('SET', claim, value, 'PX', lasts)
return false
