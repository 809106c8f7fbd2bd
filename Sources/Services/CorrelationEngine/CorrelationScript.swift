import Redis

/// The script that merges a group of records into its correlation.
///
/// KEYS: the hash, the JSON text, the index. ARGV: id, trace id as JSON, lifetime in ms, most records, most logs, most names, most
/// bytes of logs, service and host as JSON strings, earliest and latest time, n, then for each record: field, time, severity, JSON.
/// Returns {added, duplicates, refused, created}.
///
/// The text is `{"logs":[…` + a tail with everything that changes. `len` in the hash is where the logs end; a merge replaces what
/// comes behind it. A new tail is never shorter than the old one in practice (counters and lists only grow); where it would be, the
/// text is cut first, so that it is right in any case.
enum CorrelationScript {
    static let merge = RedisScript(
        """
        local hash, text, index = KEYS[1], KEYS[2], KEYS[3]
        local lifetime, most, logs, names = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
        local room = tonumber(ARGV[7])
        local n = tonumber(ARGV[12])
        local levels = {'TRACE', 'DEBUG', 'INFO', 'WARN', 'ERROR', 'FATAL'}
        local fields = {}
        for i = 1, n do fields[i] = ARGV[9 + 4 * i] end
        -- One packed field holds all that is not a fingerprint: half the time of a call goes into its arguments.
        local had = redis.call('HMGET', hash, 's', unpack(fields))
        local before = redis.call('STRLEN', text)
        local state = had[1] and before > 0 and cmsgpack.unpack(had[1])
        local created = 0
        if not state then
          if had[1] then redis.call('DEL', hash) end
          state, had, created = {0, 0, 0, ARGV[10], ARGV[11], ',', ',', 0, 0, 0, 0, 0, 0}, {}, 1
        end
        local count, kept, len, first, last = state[1], state[2], state[3], state[4], state[5]
        local level = {}
        for i = 1, 6 do level[levels[i]] = state[7 + i] end
        local added, duplicates, refused = 0, 0, 0
        -- `{"logs":[` is 9 bytes; a comma stands between two.
        local used = len == 0 and 0 or len - 9 + 1
        local seen, set, piece = {}, {}, {}
        for i = 1, n do
          local at = 9 + 4 * i
          local field = ARGV[at]
          if had[1 + i] or seen[field] then
            duplicates = duplicates + 1
          elseif count >= most then
            refused = refused + 1
          else
            seen[field] = true
            count = count + 1
            added = added + 1
            set[#set + 1] = field
            set[#set + 1] = ''
            local time, severity = ARGV[at + 1], ARGV[at + 2]
            if time < first then first = time end
            if time > last then last = time end
            level[severity] = level[severity] + 1
            local size = #ARGV[at + 3] + 1
            if kept < logs and used + size <= room then
              used = used + size
              piece[#piece + 1] = (kept == 0 and '' or ',') .. ARGV[at + 3]
              kept = kept + 1
            end
          end
        end
        if added == 0 then return {0, duplicates, refused, 0} end
        local function note(list, name)
          if string.find(list, ',' .. name .. ',', 1, true) then return list end
          -- `","` stands between two names only: inside one, quotes are escaped.
          local _, between = string.gsub(list, '","', '')
          if list ~= ',' and between + 1 >= names then return list end
          return list .. name .. ','
        end
        local services, hosts = note(state[6], ARGV[8]), note(state[7], ARGV[9])
        local counts, status = {}, 'ok'
        for i = 1, 6 do
          local c = level[levels[i]]
          if c > 0 then
            counts[#counts + 1] = '"' .. levels[i] .. '":' .. c
            if i >= 5 then status = 'error' elseif i == 4 then status = 'warning' end
          end
        end
        local body = table.concat(piece)
        local head = len == 0 and '{"logs":[' or ''
        local tail = '],"id":"' .. ARGV[1] .. '","trace_id":' .. ARGV[2]
          .. ',"services":[' .. string.sub(services, 2, -2) .. '],"hosts":[' .. string.sub(hosts, 2, -2)
          .. '],"first_seen":"' .. first .. '","last_seen":"' .. last .. '","log_count":' .. count
          .. ',"span_count":0,"logs_dropped":' .. (count - kept)
          .. ',"severities":{' .. table.concat(counts, ',') .. '},"status":"' .. status .. '"}'
        local from = len
        len = len + #head + #body
        if from == 0 then
          redis.call('SET', text, head .. body .. tail)
        else
          if len + #tail < before then redis.call('SET', text, redis.call('GETRANGE', text, 0, from - 1)) end
          redis.call('SETRANGE', text, from, body .. tail)
        end
        state = {count, kept, len, first, last, services, hosts}
        for i = 1, 6 do state[7 + i] = level[levels[i]] end
        redis.call('HSET', hash, 's', cmsgpack.pack(state), unpack(set))
        local clock = redis.call('TIME')
        local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
        redis.call('PEXPIREAT', text, now + lifetime)
        redis.call('PEXPIREAT', hash, now + lifetime)
        redis.call('ZADD', index, now, ARGV[1])
        -- The index can only grow by what is new; it is swept every ten seconds besides.
        if created == 1 then redis.call('ZREMRANGEBYSCORE', index, '-inf', now - lifetime) end
        return {added, duplicates, refused, created}
        """)

    /// Takes what has expired out of the index, by Redis' own clock. KEYS: the index. ARGV: lifetime in ms.
    static let sweep = RedisScript(
        """
        local clock = redis.call('TIME')
        return redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', clock[1] * 1000 + math.floor(clock[2] / 1000) - tonumber(ARGV[1]))
        """)
}
