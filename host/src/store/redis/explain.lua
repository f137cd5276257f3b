-- What is known of one pair. KEYS: the head. ARGV: target, actor.
-- Reply: mode ('cold' when unknown), count, dirty, invalid, pair (since, 'absent' or 'unknown'), ttl in ms.
local head = read_head(KEYS[1])
local key = head and head.prefix .. 't:' .. ARGV[1]
local record = head and call('GET', key)
local target = head and known(record, head)
if not target then
    return { 'cold', 0, 0, 0, 'unknown', -1 }
end
local pair = call('ZSCORE', head.prefix .. 'm:' .. ARGV[1], ARGV[2])
if not pair then
    local is_unknown = target.mode == 'h' and call('SISMEMBER', head.prefix .. 'n:' .. ARGV[1], ARGV[2]) == 0
    pair = is_unknown and 'unknown' or 'absent'
end
return {
    target.mode, target.count, target.last > head.flushed and 1 or 0, tonumber(sub(record, 2, 2)), pair, call('PTTL', key),
}
