-- Drops entries that SQL has committed. KEYS: the head. ARGV: incarnation, position, ttl of states in ms, number of
-- known pairs of a huge target that are kept, number of touched targets, changes up to the position and what they amount
-- to (-1 when unknown); the touched targets; the invalid targets. Reply: 1 when it applied.
local head = read_head(KEYS[1])
local position = tonumber(ARGV[2])
if not head or head.inc ~= ARGV[1] or position < head.flushed or position > head.last then
    return 0
end
local max = math.max
local prefix, state_ttl, pairs_max, touched = head.prefix, ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local stream, after = prefix .. 'j', whole(position + 1)

-- The first entry of this journal after the position; nil when there is none.
local function first_after()
    local from, count, page = after .. '-0', 1, nil
    repeat
        page = call('XRANGE', stream, from, '+', 'COUNT', count)
        for _, entry in ipairs(page) do
            local found = read_entry(entry, head)
            if found then
                return found
            end
            from = '(' .. entry[1]
        end
        if #page < count then
            return nil
        end
        count = 32
    until false
end

-- How much of what was ever appended lies at or below the position, what was lost there too: the entry after it says so,
-- if it knows of no loss after it; else the one at the position, or who has read it.
local following, there = first_after(), call('XRANGE', stream, ARGV[2] .. '-0', ARGV[2] .. '-0')[1]
there = there and read_entry(there, head)
local function before_following()
    local _, unchanged = string.gsub(following.k, '[0xz]', '')
    head.to, head.tw = following.o - (#following.k - unchanged), following.before or -1
    head.tb = following.b - #following.k - #following.p - (following.previous and 65 or 41)
end
if following and following.previous and following.previous <= position then
    before_following()
elseif position == head.last then
    head.to, head.tb, head.tw = head.o, head.b, head.w
elseif ARGV[6] ~= '-1' then
    head.to, head.tb, head.tw = tonumber(ARGV[6]), there and there.b or head.tb, tonumber(ARGV[7])
elseif there then
    head.to, head.tb, head.tw = there.o, there.b, -1
elseif following and not following.previous and position > head.gone then
    -- The previous format; trimming to a place without an entry leaves a hole behind.
    before_following()
end
if not following then
    -- Nothing of it is left, whatever was lost.
    head.tb = head.b
end
head.old = following and following.t or 0
local flushed_before = head.flushed
head.flushed, head.gone = position, max(head.gone, position)

local invalid, order, metas, owned = {}, {}, {}, {}
for at = 8, #ARGV do
    local id = ARGV[at]
    if invalid[id] == nil then
        order[#order + 1] = id
        metas[#order] = call('HGET', prefix .. 't:' .. id, '')
        if metas[#order] then
            -- Fails here, before the first write, when it is not as weir wrote it.
            local mode = read_meta(metas[#order])
            owned[id] = mode == 'p' and owned_by(head, id)
        end
        invalid[id] = false
    end
    invalid[id] = invalid[id] or at > 7 + touched
end

call('XTRIM', stream, 'MINID', '=', after .. '-0')

-- A document does not wait any more. One whose id may be asked for again is known to exist, unless SQL refused it.
local function clean_document(id, key, is_asked_again)
    forget_document(head, id, owned[id])
    head.docs = max(head.docs - 1, 0)
    if is_asked_again and not invalid[id] then
        call('HSET', key, '', meta_of('e', '0', head.life, 0, 0))
        call('PEXPIRE', key, state_ttl)
    end
end

local function clean_target(id, key, meta)
    local mode, was_invalid, life, last, count = read_meta(meta)
    local dirty, is_clean, is_invalid = prefix .. 'd:' .. id, last <= position, invalid[id] or was_invalid == '1'
    if is_clean and last > flushed_before and life == head.life then
        head.dirty = max(head.dirty - 1, 0)
    end
    if is_clean and (is_invalid or life ~= head.life) then
        call('DEL', key, dirty)
        return
    end
    if mode == 'h' then
        call('ZREMRANGEBYSCORE', dirty, '-inf', ARGV[2])
        if is_clean and call('HLEN', key) - 1 > pairs_max then
            call('DEL', key, dirty)
            call('HSET', key, '', meta)
        end
    end
    if is_clean then
        call('PEXPIRE', key, state_ttl, 'NX')
    elseif is_invalid and was_invalid == '0' then
        call('HSET', key, '', sub(meta, 1, 1) .. '1' .. sub(meta, 3))
    end
end

for index, id in ipairs(order) do
    local meta, key = metas[index], prefix .. 't:' .. id
    if meta and sub(meta, 1, 1) == 'p' then
        local _, is_asked_again, _, last = read_meta(meta)
        if last <= position then
            clean_document(id, key, is_asked_again == '1')
        end
    elseif meta then
        clean_target(id, key, meta)
    end
end
if head.o == head.to then
    -- Nothing waits, whatever was not named.
    head.dirty, head.docs = 0, 0
end
call('HSET', head.key, 'n', head_numbers(head))
return 1
