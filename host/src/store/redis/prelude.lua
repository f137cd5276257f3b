-- Before each script: heads, the records of targets, and helpers. Keys and fields: see redis/keys.rs.
--
-- A script reads and checks everything before its first write, and its `#!lua` line makes Redis check memory, disk
-- and role before the script begins: it has its whole effect or none.

-- Numbers are doubles: positions, times and counts stay below 2^53, and no id ever becomes a number. `whole` writes
-- them exactly (`..` would write 14 digits) and sooner than Redis, which takes them for fractions.
local call = redis.call
local sub, match, format = string.sub, string.match, string.format

local function whole(number)
    return format('%d', number)
end

local function damaged(what)
    error(redis.error_reply('WEIRDAMAGED ' .. what))
end

-- Byte order; `<` of Lua follows the server's locale.
local function less(a, b)
    local shorter = math.min(#a, #b)
    for at = 1, shorter do
        local x, y = string.byte(a, at), string.byte(b, at)
        if x ~= y then
            return x < y
        end
    end
    return #a < #b
end

-- Calls `command key item…` with any number of items, `step` at a time.
local function call_many(command, key, items, step)
    for first = 1, #items, step do
        call(command, key, unpack(items, first, math.min(first + step - 1, #items)))
    end
end

-- MGET of any number of keys.
local function get_many(names)
    if #names <= 4000 then
        return #names == 0 and {} or call('MGET', unpack(names))
    end
    local values = {}
    for first = 1, #names, 4000 do
        for _, value in ipairs(call('MGET', unpack(names, first, math.min(first + 3999, #names)))) do
            values[#values + 1] = value
        end
    end
    return values
end

-- The head of a partition, nil when there is none. `key` is `weir:{kind:p}:x`.
local function read_head(key)
    local f = call('HMGET', key, 'inc', 'life', 'last', 'flushed', 'floor', 'o', 'b', 'to', 'tb', 'old')
    if not f[1] then
        return nil
    end
    return {
        key = key, prefix = string.sub(key, 1, -2), inc = f[1], life = f[2], last = tonumber(f[3]),
        flushed = tonumber(f[4]), floor = tonumber(f[5]), o = tonumber(f[6]), b = tonumber(f[7]),
        to = tonumber(f[8]), tb = tonumber(f[9]), old = tonumber(f[10]), fresh = 0,
    }
end

-- A host answers this reply: redis/reply.rs reads it.
local function head_reply(head)
    return {
        head.inc, head.last, head.flushed, head.floor, head.o - head.to, head.b - head.tb, head.old, head.fresh,
    }
end

-- The record of a target: mode ('m'issing, 'w'hole, 'h'uge), '1' when invalid, 12 letters of the life, count, last.
local function target_record(mode, invalid, life, count, last)
    return mode .. invalid .. life .. ' ' .. whole(count) .. ' ' .. whole(last)
end

-- Count and last of a record.
local function read_record(record)
    local count, last = match(record, '^(%d+) (%d+)$', 16)
    if not count then
        damaged('the record of a target is not as weir wrote it')
    end
    return tonumber(count), tonumber(last)
end

local function is_known(record, head)
    return record and sub(record, 3, 14) == head.life
end

-- The target if it is known now, else nil.
local function known(record, head)
    if not is_known(record, head) then
        return nil
    end
    local count, last = read_record(record)
    return { mode = sub(record, 1, 1), count = count, last = last }
end
