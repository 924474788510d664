-- Writes latest rows of one partition unless newer ones are there.
-- KEYS: rows hash, fence hash
-- ARGV: partition, topic id, newest row of the partition, how many of the first symbols to check
--       for another partition, then symbol and row in turn
-- Returns: 1 or 0 (written or not), number of symbols that were on another partition
local partition, topic, newest = ARGV[1], ARGV[2], tonumber(ARGV[3])
local fence = redis.call('HGET', KEYS[2], partition)
if fence then
  local fenced_topic, fenced_row = string.match(fence, '^(.*):(%-?%d+)$')
  if fenced_topic == topic and tonumber(fenced_row) > newest then
    return {0, 0}
  end
end
local conflicts = 0
local pattern = '"partition":' .. partition .. '[,}]'
for i = 0, tonumber(ARGV[4]) - 1 do
  local present = redis.call('HGET', KEYS[1], ARGV[5 + 2 * i])
  if present and not string.find(present, pattern) then
    conflicts = conflicts + 1
  end
end
for first = 5, #ARGV, 1000 do
  redis.call('HSET', KEYS[1], unpack(ARGV, first, math.min(first + 999, #ARGV)))
end
redis.call('HSET', KEYS[2], partition, topic .. ':' .. ARGV[3])
return {1, conflicts}
