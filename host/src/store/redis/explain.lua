-- What is known of one pair. KEYS: the head. ARGV: target, actor.
-- Reply: mode ('cold' when unknown), count, dirty, invalid, pair (since, 'absent' or 'unknown'), ttl in ms.
local head = read_head(KEYS[1])
local key = head and head.prefix .. 't:' .. ARGV[1]
local found = head and call('HMGET', key, '', ARGV[2])
if not head or not is_known(found[1], head) then
    return { 'cold', 0, 0, 0, 'unknown', -1 }
end
local mode, invalid, _, last, count = read_meta(found[1])
local pair = found[2]
if not pair then
    pair = mode == 'h' and 'unknown' or 'absent'
elseif pair == '-' then
    pair = 'absent'
end
return {
    mode, count, last > head.flushed and 1 or 0, tonumber(invalid), pair, call('PTTL', key),
}
