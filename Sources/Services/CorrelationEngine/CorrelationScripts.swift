import Redis

/// The scripts that change correlations in Redis. Each works on keys of one shard only, which is one slot of a cluster.
///
/// The state of a correlation (`corr:trace:<id>`) is one string: `revision|mark|length|owners|` and then the marks of all its records.
/// `mark` is how much of the text (`corr:<id>`) had been emitted, `length` how long it is, `owners` who took in the records that were not
/// emitted yet: `;1=5;2=3`. No owners: complete.
///
/// Calls are few and their work is batched (MGET, MSET, ZADD of many): a command inside a script costs about half a microsecond, a call
/// ten.
enum CorrelationScripts {
    /// Every script begins with this: keys that are something else than they must be are found, and named, before anything is written.
    /// A script that failed half-way would leave records stored that were said to be refused.
    private static let kinds = """
        local function wrong_kind(key, wanted)
          local kind = redis.call('TYPE', key).ok
          if kind == wanted or kind == 'none' then return nil end
          return redis.error_reply('WRONGTYPE the key ' .. key .. ' holds a ' .. kind .. ' where a ' .. wanted .. ' belongs')
        end
        -- A count that Redis could not add to.
        local function wrong_count(key, field, value)
          if not value then return nil end
          local digits = string.match(value, '^-?([1-9]%d*)$') or value == '0' and value
          if digits and #digits < 19 then return nil end
          return redis.error_reply('WRONGTYPE the key ' .. key .. ' has ' .. field .. ' = ' .. string.sub(value, 1, 40)
            .. ', which is no count that can be added to')
        end

        """

    /// Takes in groups.
    ///
    /// KEYS: index, ledger, cursor, rooted; then state and text of each group, all different. ARGV: instance, most records, most bytes of
    /// text, rejected and duplicate records that were found before, where an id begins in the key of a text, `R` or `-` for each group
    /// (whether its root is to be noted), the number of records in groups, the quiet time in ms; then for each group: the state that it has if it is new, and its
    /// piece. Returns of each group that was not new its index (from 1), added, duplicates and refused; or only its index, negative, when
    /// all of it was added. A new one has all added.
    static let ingest = RedisScript(
        kinds + """
            local sub, find, byte = string.sub, string.find, string.byte
            -- The piece without the records that are not kept: protobuf fields, 3 and 4 of them records (their tags are 26 and 34).
            local function cut(piece, keep)
              local out, at, record = {}, 1, 0
              while at <= #piece do
                local start, tag = at, byte(piece, at)
                local size, unit = 0, 1
                repeat
                  at = at + 1
                  local b = byte(piece, at)
                  size = size + b % 128 * unit
                  unit = unit * 128
                until b < 128
                at = at + 1 + size
                local kept = true
                if tag == 26 or tag == 34 then
                  record = record + 1
                  kept = keep[record]
                end
                if kept then out[#out + 1] = sub(piece, start, at - 1) end
              end
              return table.concat(out)
            end
            local function known(seen, mark)
              local from = 1
              while true do
                local at = find(seen, mark, from, true)
                if not at then return false end
                if (at - 1) % 9 == 0 then return true end
                from = at + 1
              end
            end
            -- The marks that are new, at most as many as there is room for, and the piece with their records only.
            local function select_new(seen, marks, piece, most)
              local have, count, fresh, keep, repeated, refused = #seen / 9, #marks / 9, {}, {}, 0, 0
              for k = 1, count do
                local one = sub(marks, 9 * k - 8, 9 * k)
                if known(seen, one) then
                  repeated = repeated + 1
                elseif have + #fresh >= most then
                  refused = refused + 1
                else
                  fresh[#fresh + 1] = one
                  keep[k] = true
                end
              end
              if #fresh < count then piece = cut(piece, keep) end
              return #fresh, repeated, refused, table.concat(fresh), piece
            end
            local n = (#KEYS - 4) / 2
            local wrong = wrong_kind(KEYS[1], 'zset') or wrong_kind(KEYS[2], 'hash') or wrong_kind(KEYS[3], 'string')
              or wrong_kind(KEYS[4], 'zset')
            if wrong then return wrong end
            local fields = {':received', ':pending', ':duplicate', ':rejected'}
            for i = 1, 4 do fields[i] = ARGV[1] .. fields[i] end
            local counts = redis.call('HMGET', KEYS[2], unpack(fields))
            for i = 1, 4 do
              wrong = wrong_count(KEYS[2], fields[i], counts[i])
              if wrong then return wrong end
            end
            local clock = redis.call('TIME')
            local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
            -- A clock that was set back must not put changes where completion has already been: from there on time is the cursor's, which
            -- the settler moves on (see `turn`), and a change has its quiet time before it.
            local cursor = redis.call('GET', KEYS[3]) or '0'
            wrong = wrong_count(KEYS[3], 'its value', cursor)
            if wrong then return wrong end
            now = math.max(now, tonumber(cursor) + math.max(tonumber(ARGV[9]), 1))
            -- Once for all: each number that is made a string costs a third of a microsecond.
            local stamp = string.format('%d', now)
            local instance, most, room, skip = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[6])
            local owner = ';' .. instance .. '='
            local rejected, duplicate, pending = tonumber(ARGV[4]), tonumber(ARGV[5]), 0
            local grouped = tonumber(ARGV[8])
            local received = rejected + duplicate + grouped
            pending = grouped
            local reply = {}
            if n > 0 then
              local names = {}
              for i = 1, n do names[i] = KEYS[3 + 2 * i] end
              local states = redis.call('MGET', unpack(names))
              -- Nothing is written before all is decided: a script that fails half-way has written nothing.
              local set, appended, index, roots = {}, {}, {}, {}
              for i = 1, n do
                local text, head, piece = KEYS[4 + 2 * i], ARGV[8 + 2 * i], ARGV[9 + 2 * i]
                local state, added = states[i], 1
                local revision, mark, length, owners, at
                if state then revision, mark, length, owners, at = string.match(state, '^(%d+)|(%d+)|(%d+)|([^|]*)|()') end
                if not revision then
                  -- New; or something else stands there, which is no correlation and gives way.
                  local last = #set
                  set[last + 1] = names[i]
                  set[last + 2] = head
                  set[last + 3] = text
                  set[last + 4] = piece
                else
                  local marks = sub(head, (string.match(head, '^0|0|%d+|[^|]*|()')))
                  local count = #marks / 9
                  local seen = sub(state, at)
                  local plain = #seen / 9 + count <= most
                  if plain then
                    for k = 1, #marks, 9 do
                      if known(seen, sub(marks, k, k + 8)) then
                        plain = false
                        break
                      end
                    end
                  end
                  if plain then
                    -- What nearly always happens: all of it is new. No table is made for it.
                    added = count
                    reply[#reply + 1] = -i
                  else
                    local repeated, refused
                    added, repeated, refused, marks, piece = select_new(seen, marks, piece, most)
                    pending = pending - count + added
                    duplicate = duplicate + repeated
                    rejected = rejected + refused
                    local at = #reply
                    reply[at + 1], reply[at + 2], reply[at + 3], reply[at + 4] = i, added, repeated, refused
                  end
                  if added > 0 then
                    wrong = wrong_kind(text, 'string')
                    if wrong then return wrong end
                    if length + #piece <= room then
                      appended[#appended + 1] = text
                      appended[#appended + 1] = piece
                      length = length + #piece
                    end
                    local _, stop = find(owners, owner, 1, true)
                    local before, rest
                    if stop then before, rest = string.match(owners, '^(%d+)()', stop + 1) end
                    if before then
                      owners = sub(owners, 1, stop) .. (before + added) .. sub(owners, rest)
                    else
                      owners = owners .. owner .. added
                    end
                    set[#set + 1] = names[i]
                    set[#set + 1] = revision .. '|' .. mark .. '|' .. length .. '|' .. owners .. '|' .. seen .. marks
                  end
                end
                if added > 0 then
                  local id, at = sub(text, skip), #index
                  index[at + 1] = stamp
                  index[at + 2] = id
                  if byte(ARGV[7], i) == 82 then
                    roots[#roots + 1] = stamp
                    roots[#roots + 1] = id
                  end
                end
              end
              if #set > 0 then
                redis.call('MSET', unpack(set))
                for i = 1, #appended, 2 do redis.call('APPEND', appended[i], appended[i + 1]) end
                redis.call('ZADD', KEYS[1], unpack(index))
              end
              if #roots > 0 then redis.call('ZADD', KEYS[4], 'NX', unpack(roots)) end
            end
            redis.call('HINCRBY', KEYS[2], instance .. ':received', received)
            if pending > 0 then redis.call('HINCRBY', KEYS[2], instance .. ':pending', pending) end
            if duplicate > 0 then redis.call('HINCRBY', KEYS[2], instance .. ':duplicate', duplicate) end
            if rejected > 0 then redis.call('HINCRBY', KEYS[2], instance .. ':rejected', rejected) end
            return reply
            """)

    /// Completes correlations: marks them emitted, moves the ledger, and puts batches into the stream of emissions and each export queue.
    /// What is complete already is passed over, so that this is done once for each, whoever asks.
    ///
    /// KEYS: ledger, cursor, rooted, emissions; queue and count of dropped ones for each target; then the states. ARGV: the new cursor or
    /// an empty string, correlations of a batch, bytes of a batch, batches of a queue, number of targets; then id and time of change of
    /// each state. Returns emitted, of these updated.
    static let complete = RedisScript(
        kinds + """
            local targets = tonumber(ARGV[5])
            local first = 4 + 2 * targets
            local wrong = wrong_kind(KEYS[1], 'hash') or wrong_kind(KEYS[2], 'string') or wrong_kind(KEYS[3], 'zset')
              or wrong_kind(KEYS[4], 'stream')
            for t = 1, targets do
              local dropped = KEYS[4 + 2 * t]
              wrong = wrong or wrong_kind(KEYS[3 + 2 * t], 'zset') or wrong_kind(dropped, 'string')
                or wrong_count(dropped, 'its value', redis.call('GET', dropped))
            end
            if wrong then return wrong end
            local n = #KEYS - first
            local names = {}
            for i = 1, n do names[i] = KEYS[first + i] end
            local states = n > 0 and redis.call('MGET', unpack(names)) or {}
            local set, moved, gone = {}, {}, {}
            local batches, batch, bytes, oldest = {}, {}, 0, nil
            local emitted, updated = 0, 0
            local function close()
              if #batch > 0 then batches[#batches + 1] = oldest .. ' ' .. table.concat(batch, ' ') end
              batch, bytes, oldest = {}, 0, nil
            end
            local most, room = tonumber(ARGV[2]), tonumber(ARGV[3])
            for i = 1, n do
              local id, score = ARGV[4 + 2 * i], tonumber(ARGV[5 + 2 * i])
              gone[i] = id
              if states[i] then
                local revision, mark, length, owners, at = string.match(states[i], '^(%d+)|(%d+)|(%d+)|([^|]*)|()')
                if owners and owners ~= '' then
                  for instance, count in string.gmatch(owners, ';([^=]+)=(%d+)') do moved[instance] = (moved[instance] or 0) + count end
                  emitted = emitted + 1
                  if revision ~= '0' then updated = updated + 1 end
                  revision = revision + 1
                  set[#set + 1] = names[i]
                  set[#set + 1] = revision .. '|' .. length .. '|' .. length .. '||' .. string.sub(states[i], at)
                  if #batch == most or bytes > room then close() end
                  batch[#batch + 1] = id .. '|' .. mark .. '|' .. length .. '|' .. revision
                  bytes = bytes + length - mark
                  if not oldest or score < oldest then oldest = score end
                end
              end
            end
            close()
            for instance in pairs(moved) do
              local fields = {instance .. ':pending', instance .. ':correlated'}
              local counts = redis.call('HMGET', KEYS[1], unpack(fields))
              wrong = wrong_count(KEYS[1], fields[1], counts[1]) or wrong_count(KEYS[1], fields[2], counts[2])
              if wrong then return wrong end
            end
            if #set > 0 then redis.call('MSET', unpack(set)) end
            for instance, count in pairs(moved) do
              redis.call('HINCRBY', KEYS[1], instance .. ':pending', -count)
              redis.call('HINCRBY', KEYS[1], instance .. ':correlated', count)
            end
            if ARGV[1] ~= '' then redis.call('SET', KEYS[2], ARGV[1]) end
            if n > 0 then redis.call('ZREM', KEYS[3], unpack(gone)) end
            if #batches > 0 then
              for i = 1, #batches do redis.call('XADD', KEYS[4], 'MAXLEN', '~', 200, '*', 'b', batches[i]) end
              for t = 1, targets do
                local queue = KEYS[3 + 2 * t]
                for i = 1, #batches do redis.call('ZADD', queue, string.match(batches[i], '^%d+'), batches[i]) end
                local over = redis.call('ZCARD', queue) - tonumber(ARGV[4])
                while over > 0 do
                  local _, bars = string.gsub(redis.call('ZPOPMIN', queue)[1], '|', '|')
                  redis.call('INCRBY', KEYS[4 + 2 * t], bars / 3)
                  over = over - 1
                end
              end
            end
            return {emitted, updated}
            """)

    /// Forgets correlations that did not change since `bound`, with everything that belongs to them, except what an export still waits for.
    /// Returns how many.
    ///
    /// KEYS: index, ledger, rooted; queue and taken of each target; then state and text of each. ARGV: bound in ms, number of targets, then
    /// the ids.
    static let expire = RedisScript(
        kinds + """
            local bound, targets, states, asked = tonumber(ARGV[1]), tonumber(ARGV[2]), {}, {}
            local first = 3 + 2 * targets
            local wrong = wrong_kind(KEYS[1], 'zset') or wrong_kind(KEYS[2], 'hash') or wrong_kind(KEYS[3], 'zset')
            for t = 1, targets do wrong = wrong or wrong_kind(KEYS[2 + 2 * t], 'zset') or wrong_kind(KEYS[3 + 2 * t], 'zset') end
            if wrong then return wrong end
            local n = (#KEYS - first) / 2
            -- A batch begins with the time of its oldest correlation, and is no older than it.
            local function keep(batch)
              local oldest = tonumber(string.match(batch, '^%d+') or '')
              if oldest and oldest <= bound then bound = oldest - 1 end
            end
            for t = 1, targets do
              for _, batch in ipairs(redis.call('ZRANGE', KEYS[2 + 2 * t], 0, 0)) do keep(batch) end
              for _, batch in ipairs(redis.call('ZRANGE', KEYS[3 + 2 * t], 0, -1)) do keep(batch) end
            end
            for i = 1, n do
              states[i] = KEYS[first - 1 + 2 * i]
              asked[i] = ARGV[2 + i]
            end
            -- Asked again here: a record may have come since the index was read.
            local scores = redis.call('ZMSCORE', KEYS[1], unpack(asked))
            local values = redis.call('MGET', unpack(states))
            local keys, ids, lost = {}, {}, {}
            for i = 1, n do
              local score = scores[i]
              if type(score) == 'table' then score = score.double end
              if score and tonumber(score) <= bound then
                ids[#ids + 1] = asked[i]
                keys[#keys + 1] = states[i]
                keys[#keys + 1] = KEYS[first + 2 * i]
                local owners = string.match(values[i] or '0|0|0||', '^%d+|%d+|%d+|([^|]*)|') or ''
                for instance, count in string.gmatch(owners, ';([^=]+)=(%d+)') do lost[instance] = (lost[instance] or 0) + count end
              end
            end
            if #ids == 0 then return 0 end
            for instance in pairs(lost) do
              local fields = {instance .. ':pending', instance .. ':expired'}
              local counts = redis.call('HMGET', KEYS[2], unpack(fields))
              wrong = wrong_count(KEYS[2], fields[1], counts[1]) or wrong_count(KEYS[2], fields[2], counts[2])
              if wrong then return wrong end
            end
            redis.call('UNLINK', unpack(keys))
            redis.call('ZREM', KEYS[1], unpack(ids))
            redis.call('ZREM', KEYS[3], unpack(ids))
            for instance, count in pairs(lost) do
              redis.call('HINCRBY', KEYS[2], instance .. ':pending', -count)
              redis.call('HINCRBY', KEYS[2], instance .. ':expired', count)
            end
            return #ids
            """)

    /// Takes or keeps the turn to settle, which one instance has at a time. KEYS: turn, cursor. ARGV: who, for how long in ms, the quiet time
    /// in ms, the cursor that who asks has seen last, and how long ago in ms it saw it first. Returns whether it has it, the time in ms, the
    /// cursor, and whether the time is not the clock's.
    ///
    /// Where Redis' clock was set back, time goes on from the cursor by the clock of who asks, a little more slowly, until Redis' clock has
    /// caught up: else nothing would be complete for as long as it was set back.
    static let turn = RedisScript(
        kinds + """
            local wrong = wrong_kind(KEYS[1], 'string') or wrong_kind(KEYS[2], 'string')
            if wrong then return wrong end
            local clock = redis.call('TIME')
            local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
            local holder = redis.call('GET', KEYS[1])
            -- A turn that ends later than one that was taken now was taken before the clock was set back.
            if holder and holder ~= ARGV[1] and redis.call('PTTL', KEYS[1]) <= tonumber(ARGV[2]) then return {0, now, 0, 0} end
            local cursor = redis.call('GET', KEYS[2]) or '0'
            wrong = wrong_count(KEYS[2], 'its value', cursor)
            if wrong then return wrong end
            redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
            local passed = cursor == ARGV[4] and math.floor(tonumber(ARGV[5]) * 0.9) or 0
            cursor = tonumber(cursor)
            local own = cursor + math.max(tonumber(ARGV[3]), 1) + passed
            if own > now then return {1, own, cursor, 1} end
            return {1, now, cursor, 0}
            """)

    /// Takes batches on lease. KEYS: queue, taken. ARGV: lease in ms, at most. Returns how many of them had been taken before by an
    /// instance that did not finish them; the batches, these first; and the time at which the lease ends, which is the holder's proof that
    /// a batch is its own: whoever takes the batch later gets a later end.
    static let take = RedisScript(
        kinds + """
            local wrong = wrong_kind(KEYS[1], 'zset') or wrong_kind(KEYS[2], 'zset')
            if wrong then return wrong end
            local clock = redis.call('TIME')
            local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
            local most = tonumber(ARGV[2])
            local out = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, most)
            -- A lease that ends a minute later than any that is given now was given before the clock was set back: who held it may be dead, and
            -- would be waited for as long as that. Is it alive, a batch is sent twice, as after any end of a lease.
            if #out < most then
              local over = now + ARGV[1] + 60000
              for _, batch in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. string.format('%d', over), '+inf', 'LIMIT', 0, most - #out)) do
                out[#out + 1] = batch
              end
            end
            local again = #out
            if again < most then
              local fresh = redis.call('ZRANGE', KEYS[1], 0, most - again - 1)
              if #fresh > 0 then redis.call('ZREM', KEYS[1], unpack(fresh)) end
              for i = 1, #fresh do out[#out + 1] = fresh[i] end
            end
            local ends = string.format('%d', now + ARGV[1])
            for i = 1, #out do redis.call('ZADD', KEYS[2], ends, out[i]) end
            return {again, out, ends}
            """)

    /// In the scripts that follow: whether a batch is still on the lease that ends at the given time. The proof is the end itself, and not
    /// that a new end differs from it: within one millisecond of Redis' clock a new end is the same.
    private static let mine =
        kinds + """
            local function mine(taken, batch, ends)
              local score = redis.call('ZSCORE', taken, batch)
              if type(score) == 'table' then score = score.double end
              return score and tonumber(score) == tonumber(ends)
            end

            """

    /// Makes a lease longer, if it is still the caller's. KEYS: taken. ARGV: lease in ms, the batch, when the caller's lease ends. Returns
    /// when it ends now, or 0 if the batch is no longer the caller's.
    static let renew = RedisScript(
        mine + """
            local wrong = wrong_kind(KEYS[1], 'zset')
            if wrong then return wrong end
            if not mine(KEYS[1], ARGV[2], ARGV[3]) then return '0' end
            local clock = redis.call('TIME')
            local ends = clock[1] * 1000 + math.floor(clock[2] / 1000) + ARGV[1]
            -- A clock that was set back takes nothing away from a lease, so that ends only grow.
            if ends < tonumber(ARGV[3]) then ends = tonumber(ARGV[3]) end
            ends = string.format('%d', ends)
            redis.call('ZADD', KEYS[1], ends, ARGV[2])
            return ends
            """)

    /// Gives a batch, or what is left of it, back to its queue, if it is still the caller's. KEYS: queue, taken. ARGV: the batch, what is
    /// left, when the caller's lease ends.
    static let giveBack = RedisScript(
        mine + """
            local wrong = wrong_kind(KEYS[1], 'zset') or wrong_kind(KEYS[2], 'zset')
            if wrong then return wrong end
            if mine(KEYS[2], ARGV[1], ARGV[3]) then
              redis.call('ZREM', KEYS[2], ARGV[1])
              redis.call('ZADD', KEYS[1], string.match(ARGV[2], '^%d+') or 0, ARGV[2])
            end
            return 0
            """)

}
