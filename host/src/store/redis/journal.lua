-- Reads the journal. KEYS: the head. ARGV: incarnation, position, number of changes and of bytes after which it stops.
-- Reply: code (0 entries, 1 other incarnation, 2 rewound, 3 no head); the head; entries, 5 each: id, letters of the
-- records, records, time, digest.
local head = read_head(KEYS[1])
if not head then
    return { 3 }
end
if head.inc ~= ARGV[1] then
    return { 1, head_reply(head), {} }
end
local stream, position = head.prefix .. 'j', tonumber(ARGV[2])
local wanted, bytes_max = tonumber(ARGV[3]), tonumber(ARGV[4])
local function fields(entry)
    local by_name = {}
    for index = 1, #entry[2], 2 do
        by_name[entry[2][index]] = entry[2][index + 1]
    end
    by_name.t, by_name.o, by_name.b = unpack_numbers('<ddd', by_name.n or damaged('a journal entry'))
    return by_name
end
local seen, seen_bytes = head.to, head.tb
if position > head.flushed then
    local there = call('XRANGE', stream, ARGV[2] .. '-0', ARGV[2] .. '-0')
    if #there == 0 then
        return { 2, head_reply(head), {} }
    end
    there = fields(there[1])
    seen, seen_bytes = there.o, there.b
end
local from, entries, last, last_bytes = whole(math.max(position, head.flushed)), {}, seen, seen_bytes

local function is_enough()
    return last - seen >= wanted or last_bytes - seen_bytes >= bytes_max
end

-- Pages grow, so that entries of megabytes are not read in vain.
local count = 1
repeat
    count = math.min(count * 2, 32)
    local page = call('XRANGE', stream, '(' .. from .. '-0', '+', 'COUNT', count)
    for _, entry in ipairs(page) do
        local field = fields(entry)
        entries[#entries + 1], entries[#entries + 2], entries[#entries + 3] = entry[1], field.k, field.p
        entries[#entries + 1], entries[#entries + 2] = field.t, field.m
        last, last_bytes, from = field.o, field.b, string.match(entry[1], '^%d+')
        if is_enough() then
            break
        end
    end
until #page < count or is_enough()
if #entries == 0 and position <= head.flushed and head.o > head.to then
    damaged('the journal ' .. stream .. ' has lost entries that were not yet in SQL')
end
return { 0, head_reply(head), entries }
