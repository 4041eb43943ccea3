-- Subjects, counted; then jobs, each as kind and id. All of them go, leased, dead or alive. The ids
-- of those about the subjects.
local gone = {}
local count = tonumber(take())
local kinds = redis.call('SMEMBERS', key('kinds'))
for _ = 1, count do
  local subject = take()
  for _, kind in ipairs(kinds) do
    for _, state in ipairs({'about', 'dead'}) do
      for _, id in ipairs(redis.call('SMEMBERS', key(state, kind, subject))) do
        remove(kind, id)
        table.insert(gone, id)
      end
    end
  end
end
while left() do
  remove(take(), take())
end
return gone
