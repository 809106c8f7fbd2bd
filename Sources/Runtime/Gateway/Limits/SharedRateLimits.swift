import Basics
import EventLoops
import Observability
import Redis
import Resilience

/// One loop's part of the rate limits that all gateways count together in Redis. Questions that come in one turn of the loop, or while a
/// call is under way, go to Redis together in one script call.
///
/// While Redis does not answer, each gateway counts for itself with its share of the rate: the rate divided by the number of gateways that
/// Redis last reported. A question has its answer within `patience` from when it was asked, whatever Redis does and however many questions
/// are before it: when that time is over it is counted here.
final class SharedRateLimits {
    /// One limit that a request is asked about, and the key under which it is counted there.
    struct Key {
        let limiter: RateLimiter
        let key: UInt64
    }

    /// One request, with all of its shared limits: either each of them is charged, or none.
    private final class Question {
        let keys: [Key]
        let asked: MonotonicTime
        /// nil once the question was answered.
        private var answer: (([TokenBucket.Verdict]) -> Void)?

        init(_ keys: [Key], asked: MonotonicTime, _ answer: @escaping ([TokenBucket.Verdict]) -> Void) {
            self.keys = keys
            self.asked = asked
            self.answer = answer
        }

        var isOpen: Bool { answer != nil }

        func close(_ verdicts: [TokenBucket.Verdict]) {
            let answer = answer
            self.answer = nil
            answer?(verdicts)
        }
    }

    private let loop: EventLoop
    private let redis: RedisClient
    private let journal: Journal
    private let me: String
    private var waiting: [Question] = []
    /// The questions of the call that is under way.
    private var underWay: [Question] = []
    /// Armed for when the oldest open question has waited for `patience`.
    private var timer: LoopTimer?
    private var isAsking = false
    private var isQueued = false
    private var isAway = false
    private var triedAt = MonotonicTime(nanoseconds: 0)
    /// Number of gateways that count together, this one included.
    private(set) var gateways = 1
    private let calls: Counter
    private let local: Counter

    static let patience = Duration.milliseconds(100)
    /// After a failure, Redis is asked again at most this often.
    private static let retryAfter = Duration.seconds(1)
    /// Most keys in one call, but for the last question's: a call of this size takes Redis about a millisecond.
    private static let batchLimit = 256
    /// Beginning of every key: one hash tag, so that the keys of a call lie together in a cluster.
    static let tag = "{muster:limit}:"
    /// Most gateways that can count together: a reply that names more is not believed.
    private static let gatewayLimit = TokenBucket.mostShares
    /// Most questions that wait for Redis; further ones are counted here: a store that answers too slowly for them is as good as away.
    private static let waitingLimit = 4096

    /// `redis` must have `patience` as its command time.
    init(redis: RedisClient, name: String, journal: Journal, metrics: MetricsRegistry) {
        loop = redis.loop
        self.redis = redis
        self.journal = journal
        me = name
        calls = metrics.counter("gateway_limit_calls_total", "Calls to the store of shared limits.")
        local = metrics.counter(
            "gateway_limit_local_total", "Requests of shared limits that were counted here because the store did not answer in time.")
        timer = LoopTimer(loop: loop) { [weak self] in self?.timePassed() }
    }

    static func options() -> RedisClient.Options {
        var options = RedisClient.Options()
        options.maxConnections = 1
        options.commandTime = patience
        // Requests wait for a connection that is being made, too.
        options.connectTime = patience
        options.patience = patience
        options.name = "muster-gateway-limits"
        return options
    }

    /// Asks the store about one request. `answer` gets a verdict for each key, later: all are charged when all allow the request, else none.
    func take(_ keys: [Key], _ answer: @escaping ([TokenBucket.Verdict]) -> Void) {
        let question = Question(keys, asked: max(loop.now, .now), answer)
        if isAway, loop.now - triedAt < SharedRateLimits.retryAfter { return countHere(question) }
        if waiting.count >= SharedRateLimits.waitingLimit { return countHere(question) }
        waiting.append(question)
        if timer?.isArmed == false { timer?.schedule(at: question.asked + SharedRateLimits.patience) }
        guard !isAsking, !isQueued else { return }
        isQueued = true
        let bound = LoopBound(self, on: loop)
        loop.execute {
            bound.value.isQueued = false
            bound.value.ask()
        }
    }

    private func countHere(_ question: Question) {
        local.add()
        let now = loop.now
        var verdicts: [TokenBucket.Verdict] = []
        for (place, one) in question.keys.enumerated() {
            let verdict = one.limiter.take(one.key, now: now, gateways: gateways)
            verdicts.append(verdict)
            if verdict.allowed { continue }
            for other in question.keys[..<place] { other.limiter.giveBack(other.key, gateways: gateways) }
            break
        }
        question.close(verdicts)
    }

    /// Counts here what has waited for `patience`. The oldest questions stand first: those of the call, then those that wait for the next.
    private func timePassed() {
        let now = max(loop.now, .now)
        func isDue(_ question: Question) -> Bool { now - question.asked >= SharedRateLimits.patience }
        let due = underWay.filter { $0.isOpen && isDue($0) } + waiting.prefix(while: isDue)
        waiting.removeFirst(waiting.prefix(while: isDue).count)
        for question in due { countHere(question) }
        if let next = underWay.first(where: \.isOpen) ?? waiting.first { timer?.schedule(at: next.asked + SharedRateLimits.patience) }
    }

    private func ask() {
        guard !waiting.isEmpty, !isAsking else { return }
        isAsking = true
        triedAt = loop.now
        var count = 0, size = 0
        while count < waiting.count, size < SharedRateLimits.batchLimit {
            size += waiting[count].keys.count
            count += 1
        }
        let batch = Array(waiting[..<count])
        waiting.removeFirst(count)
        underWay = batch
        let keys = batch.flatMap(\.keys)
        var call = SharedRateLimits.script.call(
            keys: [SharedRateLimits.tag + "gateways"] + keys.map { $0.limiter.prefix + String($0.key, radix: 16) })
        call.add(me)
        for question in batch {
            call.add(question.keys.count)
            for one in question.keys {
                call.add(one.limiter.bucket.intervalMicroseconds)
                call.add(one.limiter.bucket.intervalMicroseconds * (one.limiter.spec.burst + 1))
            }
        }
        calls.add()
        let redis = redis, sent = call
        let bound = LoopBound(self, on: loop)
        // Ends with the answer, or after `patience`.
        Task(executorPreference: loop) {
            let result = await redis.run(SharedRateLimits.script, [sent])
            bound.value.answered(result.first)
        }
    }

    private func answered(_ result: Result<RESPValue, RedisError>?) {
        isAsking = false
        let batch = underWay
        underWay = []
        if case .success(let value)? = result, let (count, verdicts) = read(value, batch) {
            gateways = count
            tell(away: false, "")
            for (question, verdicts) in zip(batch, verdicts) { question.close(verdicts) }
        } else {
            if case .failure(let error)? = result { tell(away: true, "\(error)") } else { tell(away: true, "an answer of another form") }
            let open = batch.filter(\.isOpen) + waiting
            waiting = []
            for question in open { countHere(question) }
        }
        ask()
    }

    /// Reads the script's reply: how many gateways count, and for each question a verdict for each of its keys; nil when the script cannot
    /// have said this. The numbers come from another process, so each is checked before anything is computed from it.
    private func read(_ value: RESPValue, _ batch: [Question]) -> (gateways: Int, verdicts: [[TokenBucket.Verdict]])? {
        guard let values = value.array, values.count == 2 * batch.reduce(0, { $0 + $1.keys.count }) + 1 else { return nil }
        let numbers = values.compactMap(\.int)
        guard numbers.count == values.count, (1...SharedRateLimits.gatewayLimit).contains(numbers[0]) else { return nil }
        var verdicts: [[TokenBucket.Verdict]] = []
        var place = 1
        for question in batch {
            var all: [TokenBucket.Verdict] = []
            for one in question.keys {
                guard let verdict = verdict(one.limiter, allowed: numbers[place], debt: numbers[place + 1]) else { return nil }
                all.append(verdict)
                place += 2
            }
            verdicts.append(all)
        }
        return (numbers[0], verdicts)
    }

    private func verdict(_ limiter: RateLimiter, allowed: Int, debt: Int) -> TokenBucket.Verdict? {
        let interval = limiter.bucket.intervalMicroseconds, span = interval * (limiter.spec.burst + 1)
        guard allowed == 0 || allowed == 1, debt >= 0, debt <= span else { return nil }
        return TokenBucket.Verdict(
            allowed: allowed == 1, remaining: (span - debt) / interval, wait: .microseconds(max(0, debt + interval - span)),
            reset: .microseconds(debt))
    }

    private func tell(away: Bool, _ detail: String) {
        guard away != isAway else { return }
        isAway = away
        journal.append(
            DecisionRecord(
                .limit, subject: "limit-store", inputs: [.init("gateways", gateways), .init("error", detail)], raw: "count in Redis",
                outcome: away ? "count here" : "count in Redis",
                sentence: away
                    ? "The store of shared limits does not answer (\(detail)): this gateway counts for itself, with 1/\(gateways) of each "
                        + "rate."
                    : "The store of shared limits answers again: the gateways count together.",
                flip: away
                    ? "an answer of the store within \(SharedRateLimits.patience.brief)"
                    : "no answer of the store within \(SharedRateLimits.patience.brief)"))
    }

    /// The generic cell rate algorithm on Redis' own clock, for many requests at once. Of each request all keys are looked at first, and
    /// charged only when each of them allows it. The script also counts the gateways: one that has not asked for fifteen seconds is gone.
    ///
    /// That clock may go back: another master's may be behind. A time that lies further ahead than any charge could have put it is of the
    /// clock before, and is written anew, also for a request that is refused: else the limit would stand still until the old time has come.
    static let script = RedisScript(
        """
        local t = redis.call('TIME')
        local now = t[1] * 1000000 + t[2]
        redis.call('ZADD', KEYS[1], t[1], ARGV[1])
        redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', t[1] - 15)
        redis.call('ZREMRANGEBYSCORE', KEYS[1], t[1] + 15, '+inf')
        redis.call('EXPIRE', KEYS[1], 60)
        local out = {redis.call('ZCARD', KEYS[1])}
        local key, at = 2, 2
        while key <= #KEYS do
          local size = tonumber(ARGV[at])
          local debts, ahead, all = {}, {}, true
          for i = 1, size do
            local interval, span = tonumber(ARGV[at + 2 * i - 1]), tonumber(ARGV[at + 2 * i])
            local debt = (tonumber(redis.call('GET', KEYS[key + i - 1])) or 0) - now
            ahead[i] = debt > span
            if debt < 0 then debt = 0 elseif debt > span then debt = span end
            debts[i] = debt
            if debt + interval > span then all = false end
          end
          for i = 1, size do
            local interval, span = tonumber(ARGV[at + 2 * i - 1]), tonumber(ARGV[at + 2 * i])
            out[#out + 1] = debts[i] + interval <= span and 1 or 0
            if all then debts[i] = debts[i] + interval end
            if all or ahead[i] then
              redis.call(
                'SET', KEYS[key + i - 1], string.format('%.0f', now + debts[i]), 'PX', math.ceil(debts[i] / 1000) + 1000)
            end
            out[#out + 1] = math.floor(debts[i])
          end
          key, at = key + size, at + 1 + 2 * size
        end
        return out
        """)
}
