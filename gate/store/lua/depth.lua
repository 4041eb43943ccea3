-- For each kind its name, how many jobs are alive, and how many are dead letters.
local depth = {}
for _, kind in ipairs(redis.call('SMEMBERS', key('kinds'))) do
  table.insert(depth, {kind, redis.call('ZCARD', key('expires', kind)),
    redis.call('ZCARD', key('letters', kind))})
end
return depth
