import Balancing
import Basics
import HTTP
import Observability

/// The latest requests of one loop, for `muster why --request ID`: where each went, why, and which other replicas there were. A ring in
/// memory that is laid out once; noting a request allocates nothing.
final class RecentRequests {
    /// Number of requests kept: about a minute at 70 requests a second; 0.8 MiB a loop.
    static let capacity = 4096
    /// Most candidates told one by one; of more, only the number is told.
    static let candidateLimit = 16

    private struct Slot {
        var id: UInt64 = 0
        var at = WallTime(milliseconds: 0)
        var route: Route?
        var isCanary = false
        var place: Int32 = -1
        var reason = Selection.Reason.turn
        var tries: UInt8 = 0
        var status: Int16 = 0
        var candidates: UInt8 = 0
        var total = Duration.zero
        var upstream: Duration?
        var held = Duration.zero
        var cache = CacheNote()
    }

    private var slots = [Slot](repeating: Slot(), count: capacity)
    private var seen = [UInt32](repeating: 0, count: capacity * candidateLimit)
    private var next = 0

    func note(_ exchange: Exchange, _ route: Route, total: Duration) {
        let place = next
        next = place + 1 == RecentRequests.capacity ? 0 : place + 1
        slots[place].id = RecentRequests.key(exchange.request.id)
        slots[place].at = .now
        if slots[place].route !== route { slots[place].route = route }
        slots[place].isCanary = exchange.pool != nil && exchange.pool === exchange.route?.canary
        slots[place].place = Int32(clamping: exchange.questions.selection?.index ?? -1)
        slots[place].reason = exchange.questions.selection?.reason ?? .turn
        slots[place].tries = UInt8(clamping: exchange.attempts.tries)
        slots[place].status = Int16(truncatingIfNeeded: exchange.answer.status)
        slots[place].total = total
        slots[place].upstream = exchange.answer.upstreamTime
        slots[place].held = exchange.wait.time
        slots[place].cache = exchange.usesCache ? exchange.visit?.note ?? CacheNote() : CacheNote()
        slots[place].candidates = UInt8(exchange.questions.candidates.count)
        for (i, candidate) in exchange.questions.candidates.enumerated() { seen[place * RecentRequests.candidateLimit + i] = candidate }
    }

    /// The hash (FNV-1a) under which an id is found: whoever asks has the whole id.
    static func key(_ id: UnsafeRawBufferPointer) -> UInt64 {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in id { hash = (hash ^ UInt64(byte)) &* 0x0000_0100_0000_01B3 }
        return hash
    }

    /// A candidate as text, such as `3 under way, ready`.
    static func text(_ candidate: UInt32) -> String {
        let states = ["ready", "unfit", "leaving", "full"]
        return "\(candidate >> 8) under way \(states[Int(candidate & 3)])"
    }

    /// Finds the newest request with this id.
    func find(_ id: String) -> (at: WallTime, record: DecisionRecord)? {
        let wanted = Array(id.utf8).withUnsafeBytes { RecentRequests.key($0) }
        for step in 1...RecentRequests.capacity {
            let place = (next - step + RecentRequests.capacity) % RecentRequests.capacity
            let slot = slots[place]
            guard slot.id == wanted, let route = slot.route else { continue }
            return (slot.at, record(slot, route, place, id))
        }
        return nil
    }

    private func record(_ slot: Slot, _ route: Route, _ place: Int, _ id: String) -> DecisionRecord {
        let replicas = slot.isCanary ? route.canaryReplicas : route.replicas
        var inputs: [DecisionRecord.Input] = [
            .init("route", route.label), .init("balance", route.method.rawValue), .init("tries", Int(slot.tries)),
        ]
        for i in 0..<min(Int(slot.candidates), replicas.count) {
            inputs.append(.init(replicas[i].name, RecentRequests.text(seen[place * RecentRequests.candidateLimit + i])))
        }
        inputs.append(.init("status", Int(slot.status)))
        inputs.append(.init("duration", slot.total.brief))
        if slot.held > .zero { inputs.append(.init("waited_for_a_replica", slot.held.brief)) }
        if let upstream = slot.upstream { inputs.append(.init("replica_answered_after", upstream.brief)) }
        inputs += CacheWords.inputs(slot.cache)
        let chosen = replicas.indices.contains(Int(slot.place)) ? replicas[Int(slot.place)].name : nil
        let waited = slot.held > .zero ? " waited \(slot.held.brief) for a replica and" : ""
        let sentence =
            chosen.map { "Request \(id)\(waited) went to \($0): \(slot.reason.sentence)\(slot.tries > 1 ? ", at try \(slot.tries)" : "")." }
            ?? "Request \(id)\(waited) was answered by the gateway itself with status \(slot.status), before any replica was chosen."
        if slot.cache.result != .none {
            return DecisionRecord(
                .cache, subject: route.label, inputs: inputs, raw: slot.cache.why.rawValue, outcome: "\(slot.cache.result)",
                sentence: CacheWords.sentence(slot.cache, id, chosen), flip: CacheWords.flip(slot.cache))
        }
        return DecisionRecord(
            .route, subject: chosen ?? route.label, inputs: inputs, raw: route.method.rawValue,
            outcome: chosen == nil ? "status \(slot.status)" : slot.reason.rawValue,
            sentence: sentence, flip: slot.reason == .panic ? "one fit replica" : "another load, another turn, or another key")
    }
}
