-- kind, then lanes. For each when its first job is due, or nothing.
local kind = take()
local dues = {}
while left() do
  local first = redis.call('ZRANGE', key('due', kind, take()), 0, 0, 'WITHSCORES')
  table.insert(dues, first[2] or false)
end
return dues
