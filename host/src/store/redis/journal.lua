-- Reads the journal. KEYS: the head. ARGV: incarnation, position, number of changes.
-- Reply: code (0 entries, 1 other incarnation, 2 rewound, 3 no head); the head; entries, 5 each: id, what became of
-- each pair, pairs, time, digest.
local head = read_head(KEYS[1])
if not head then
    return { 3 }
end
if head.inc ~= ARGV[1] then
    return { 1, head_reply(head), {} }
end
local stream, position, wanted = head.prefix .. 'j', tonumber(ARGV[2]), tonumber(ARGV[3])
local function fields(entry)
    local by_name = {}
    for index = 1, #entry[2], 2 do
        by_name[entry[2][index]] = entry[2][index + 1]
    end
    by_name.t, by_name.o = unpack_numbers('<ddd', by_name.n or damaged('a journal entry'))
    return by_name
end
local seen = head.to
if position > head.flushed then
    local there = call('XRANGE', stream, ARGV[2] .. '-0', ARGV[2] .. '-0')
    if #there == 0 then
        return { 2, head_reply(head), {} }
    end
    seen = fields(there[1]).o
end
local from, entries, last = whole(math.max(position, head.flushed)), {}, seen
repeat
    local page = call('XRANGE', stream, '(' .. from .. '-0', '+', 'COUNT', 32)
    for _, entry in ipairs(page) do
        local field = fields(entry)
        entries[#entries + 1], entries[#entries + 2], entries[#entries + 3] = entry[1], field.k, field.p
        entries[#entries + 1], entries[#entries + 2] = field.t, field.m
        last, from = field.o, string.match(entry[1], '^%d+')
        if last - seen >= wanted then
            break
        end
    end
until #page < 32 or last - seen >= wanted
if #entries == 0 and position <= head.flushed and head.o > head.to then
    damaged('the journal ' .. stream .. ' has lost entries that were not yet in SQL')
end
return { 0, head_reply(head), entries }
