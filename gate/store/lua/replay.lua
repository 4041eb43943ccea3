-- kind, when they are due, expire and are forgotten; then ids, or none for all. Their lanes.
local kind, due, expires, forgotten = take(), take(), take(), take()
local ids, lanes = {}, {}
while left() do
  table.insert(ids, take())
end
if #ids == 0 then
  ids = redis.call('ZRANGE', key('letters', kind), 0, -1)
end
for _, id in ipairs(ids) do
  local job = key('job', kind, id)
  local found = redis.call('HMGET', job, 'buried', 'lane', 'subject')
  if found[1] then
    redis.call('HSET', job, 'attempts', 0, 'claims', 0, 'due', due, 'expires', expires,
      'forgotten', forgotten)
    redis.call('HDEL', job, 'buried', 'held')
    redis.call('ZREM', key('letters', kind), id)
    redis.call('SREM', key('dead', kind, found[3]), id)
    redis.call('ZADD', key('forgotten', kind), forgotten, id)
    redis.call('SADD', key('lanes', kind), found[2])
    enter(kind, id, found[2], found[3], due, expires)
    table.insert(lanes, found[2])
  end
end
return lanes
