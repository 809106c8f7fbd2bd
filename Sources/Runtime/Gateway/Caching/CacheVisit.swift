import Basics
import CXXHash
import Caching
import EventLoops
import HTTP
import StackModel

/// One request on a route with a cache: what of its head decides, and how far it has come. Belongs to an exchange and is reused with it;
/// exchanges of other routes have none.
final class CacheVisit {
    /// What becomes of the request.
    enum Plan {
        /// The cache has no part in it.
        case bypass(CacheReason)
        /// A stored answer is served.
        case serve(CacheEntry, CacheReason, isStale: Bool, refreshes: Bool)
        /// The origin is asked, for everybody who wants the same; `validating` is what is stored.
        case fetch(CacheReason, validating: CacheEntry?)
    }

    unowned let exchange: Exchange
    /// The route's part of the cache; nil while the exchange serves another route.
    private(set) var cache: RouteCache?
    private(set) var facts = RequestFacts()
    var plan = Plan.bypass(.method)
    var note = CacheNote()

    /// The request's head, which outlives the parser's table.
    private var text = ByteBuffer()
    private var fields: [HeaderField] = []
    private var nominates = false
    /// The address, and the target without what is not in the key; nil: the target as it came.
    private var address = ByteBuffer()
    private(set) var hash: UInt64 = 0
    private var targetAt = 0
    private(set) var target: [UInt8]?
    private var scheme: StaticString = "http"
    private var host = ByteBuffer()
    private var forms: [SelectingField] = []

    /// The fetch that the request waits for, or reads.
    var flow: CacheFlow?
    /// The request's own number in that fetch.
    var ticket = 0
    var isLeader = false
    /// The fetch that this request began; nil once it is over.
    var fill: CacheFill?
    /// Fetches that were begun for this request, one after the other.
    var leaders = 1
    /// How often it had to join another fetch.
    var joins = 0
    /// Whether the request waits for a head.
    var waits = false
    var patience: LoopTimer?
    /// What is being sent to the client.
    var body = CacheBody()
    var cursor = BodyCursor()
    /// Where sending ends; nil: where the body does.
    var end: Int?
    var isSending = false
    /// Pieces of the body that were there when it was last looked at, and are gone.
    var dropped = 0

    init(_ exchange: Exchange) { self.exchange = exchange }

    var key: UnsafeRawBufferPointer { address.bytes }

    /// Takes a request's head. The table need not outlive this call.
    func begin(_ table: HeadTable, _ cache: RouteCache, scheme: StaticString, trusted: Bool) {
        self.cache = cache
        note = CacheNote()
        joins = 0
        isLeader = false
        leaders = 1
        forms.removeAll(keepingCapacity: true)
        text.clear(keeping: 65_536)
        text.append(table.bytes)
        fields.removeAll(keepingCapacity: true)
        fields.append(contentsOf: table.fields)
        nominates = table.nominatesFields
        facts = RequestFacts()
        facts.isGet = table.methodText.isExactly("GET")
        facts.isHead = table.isHead
        facts.hasBody = table.framing != .none
        facts.upgrades = table.wantsUpgrade
        for field in fields where field.known == .other { facts.take(part(field.name), part(field.value)) }
        facts.settle()
        self.scheme = scheme
        host.clear()
        let named = (trusted ? table.first(.xForwardedHost) : nil) ?? table.first(.host)
        if let named { for byte in named { host.append(byte &- 65 < 26 ? byte | 32 : byte) } }
        target = cache.spec.query.filtered(table.targetText)
        makeKey(target: nil, table.targetText)
    }

    /// Forgets the request. What it waited for must have been left.
    func forget() {
        cache = nil
        plan = .bypass(.method)
        flow = nil
        fill = nil
        waits = false
        isSending = false
        body = CacheBody()
        cursor = BodyCursor()
        end = nil
        dropped = 0
        patience?.cancel()
        if fields.capacity > 512 { fields = [] }
        target = nil
    }

    private func makeKey(target other: [UInt8]?, _ written: UnsafeRawBufferPointer) {
        address.clear(keeping: 65_536)
        address.append(scheme)
        address.append(10)
        address.append(host.bytes)
        address.append(10)
        targetAt = address.count
        if let other = other ?? target { address.append(other) } else { address.append(written) }
        hash = XXH3_64bits_withSeed(address.bytes.baseAddress, address.count, cache?.store.seed ?? 0)
    }

    /// The address of another target on the same host, in the form of another route's key.
    func key(of other: UnsafeRawBufferPointer, for route: RouteCache) -> CacheKey {
        var bytes = Array(scheme.description.utf8) + [10] + Array(host.bytes) + [10]
        let at = bytes.count
        bytes += route.spec.query.filtered(other) ?? Array(other)
        let hash = bytes.withUnsafeBytes { XXH3_64bits_withSeed($0.baseAddress, $0.count, route.store.seed) }
        return CacheKey(bytes: bytes, hash: hash, targetAt: at)
    }

    /// The host that the request named, in lower case.
    var hostName: UnsafeRawBufferPointer { host.bytes }

    func makeCacheKey() -> CacheKey { CacheKey(bytes: Array(address.bytes), hash: hash, targetAt: targetAt) }

    private func part(_ range: HeadRange) -> UnsafeRawBufferPointer { text.bytes.part(Int(range.start), Int(range.count)) }

    /// The first field of this name; `name` is ASCII in lower case.
    func first(_ name: StaticString) -> UnsafeRawBufferPointer? {
        for field in fields where part(field.name).equals(name) { return part(field.value) }
        return nil
    }

    func lines(_ name: StaticString) -> [UnsafeRawBufferPointer] {
        fields.filter { part($0.name).equals(name) }.map { part($0.value) }
    }

    private func lines(_ name: [UInt8]) -> [UnsafeRawBufferPointer] {
        name.withUnsafeBytes { name in
            fields.filter { Int($0.name.count) == name.count && equalIgnoringCase(part($0.name), name) && !isNominated($0) }
                .map { part($0.value) }
        }
    }

    /// Whether `Connection` names the field: then it does not reach the backend, as if it were not there.
    private func isNominated(_ field: HeaderField) -> Bool {
        guard nominates else { return false }
        return fields.contains { other in
            other.known == .connection
                && part(other.value).split(separator: 44).contains { equalIgnoringCase(trimmed($0), part(field.name)) }
        }
    }

    /// The value by which answers are told apart, for a field as the backend sees it.
    func form(_ name: [UInt8]) -> [UInt8]? {
        if let known = forms.first(where: { $0.name == name }) { return known.value }
        guard let cache else { return nil }
        let lines = cache.hides(name) ? [] : lines(name)
        let value = lines.isEmpty ? nil : FieldForm.of(name, lines)
        forms.append(SelectingField(name: name, value: value))
        return value
    }

    func selecting(_ names: [[UInt8]]) -> [SelectingField] { names.map { SelectingField(name: $0, value: form($0)) } }

    /// Whether an answer that was made for these fields is one for this request.
    func fits(_ selecting: [SelectingField]) -> Bool {
        for field in selecting where form(field.name) != field.value { return false }
        return true
    }

    func fits(_ entry: CacheEntry) -> Bool {
        guard let cache, entry.route == cache.number, entry.key.bytes.count == address.count else { return false }
        return entry.key.bytes.withUnsafeBytes { $0.elementsEqual(address.bytes) } && fits(entry.selecting)
    }
}

/// What explanations tell of a request's way through the cache.
struct CacheNote {
    enum Result: UInt8, CaseIterable { case none, hit, stale, validated, miss, bypass, failed }

    var result = Result.none
    var why = CacheReason.fresh
    /// What became of the origin's answer; nil where there was none.
    var stored: CacheReason?
    var isCollapsed = false
    /// Seconds since the answer was made, and until it is stale.
    var age: Int32 = 0
    var left: Int32 = 0
    /// `RecentRequests.key` of the id of the request that fetched the answer.
    var leader: UInt64 = 0
    var variants: UInt8 = 0
}

extension RouteCacheSpec.Query {
    /// The target without the parameters that are not in the key; nil when it stays as it is. Names are compared as they are written:
    /// another spelling of a name is another parameter, here and for the backend.
    func filtered(_ target: UnsafeRawBufferPointer) -> [UInt8]? {
        if self == .all { return nil }
        guard let mark = target.firstIndex(of: 63) else { return nil }
        var out = Array(target[..<mark]), separator: UInt8 = 63
        for pair in target[(mark + 1)...].split(separator: 38, omittingEmptySubsequences: false) {
            let name = String(decoding: pair.prefix { $0 != 61 }, as: UTF8.self)
            let stays =
                switch self {
                case .all: true
                case .only(let names): names.contains(name)
                case .allBut(let names): !names.contains(name)
                }
            guard stays else { continue }
            out.append(separator)
            out += pair
            separator = 38
        }
        return out.count == target.count ? nil : out
    }
}
