-- now: jobs made after it were made by a clock that was set back; they wait as long as they were
-- meant to. Leases are left alone: they may be those of another process.
local now = take()
local function earlier(text, by)
  return string.format('%.17g', tonumber(text) - by)
end
for _, kind in ipairs(redis.call('SMEMBERS', key('kinds'))) do
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', key('made', kind), '(' .. now, '+inf')) do
    local job = key('job', kind, id)
    local row = redis.call('HMGET', job, 'lane', 'made', 'due', 'expires', 'forgotten', 'held',
      'buried')
    local by = tonumber(row[2]) - tonumber(now)
    local due, expires, forgotten = earlier(row[3], by), earlier(row[4], by), earlier(row[5], by)
    redis.call('HSET', job, 'made', now, 'due', due, 'expires', expires, 'forgotten', forgotten)
    redis.call('ZADD', key('made', kind), now, id)
    redis.call('ZADD', key('forgotten', kind), forgotten, id)
    if row[6] then
      redis.call('HSET', job, 'held', earlier(row[6], by))
    end
    if row[7] then
      redis.call('ZADD', key('letters', kind), now, id)
    else
      redis.call('ZADD', key('due', kind, row[1]), due, id)
      redis.call('ZADD', key('expires', kind), expires, id)
    end
  end
end
return redis.status_reply('OK')
