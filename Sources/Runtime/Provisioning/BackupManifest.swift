import Basics
import Glibc
import JSONCoding
import Sharding

/// What is in a backup: one snapshot a master, of which slots, and how to tell that it is whole. `manifest.json` in the backup's folder.
public struct BackupManifest: Sendable, Equatable {
    /// Raised when an older reader would misunderstand a newer file.
    public static let format = 1
    static let fileName = "manifest.json"

    public struct Shard: Sendable, Equatable {
        /// The master.
        public var id: String
        public var address: String
        public var configEpoch: Int
        public var slots: SlotSet
        /// Whom the snapshot comes from: the master, or a replica of it.
        public var sourceID: String
        public var source: String
        public var replicationID: String
        public var offset: Int
        /// How far the source was behind its master when it was asked, in bytes of the replication stream; 0 for a master.
        public var lag: Int
        public var file: String
        public var bytes: Int
        public var sha256: String
        /// Of the first database that has keys, by the snapshot's own count.
        public var keys: Int
        public var expiring: Int
        /// Databases that had keys; a cluster has only 0, and the manifest then does not say so.
        public var databases: [Int] = [0]
        public var redisVersion: String
        public var begun: WallTime
        public var ended: WallTime
    }

    public var begun: WallTime
    public var ended: WallTime
    public var shards: [Shard]

    public var bytes: Int { shards.map(\.bytes).sumClamped() }
    public var keys: Int { shards.map(\.keys).sumClamped() }
    /// Between the first snapshot's moment and the last one's: a write to two masters in between may be in one of them only.
    public var spread: Duration {
        let moments = shards.map(\.begun.milliseconds)
        return .nanoseconds((moments.max() ?? 0).subtractingClamped(moments.min() ?? 0).multipliedClamped(by: 1_000_000))
    }

    /// Tells one backup from another.
    public var id: String { String(shards.map(\.sha256).joined().prefix(16)) }

    public struct Failure: Error, Equatable, CustomStringConvertible {
        public let description: String
    }

    // MARK: as JSON

    public var json: String {
        var json = JSONWriter()
        write(&json)
        return json.text
    }

    public func write(_ json: inout JSONWriter) {
        json.beginObject()
        json.member("format", BackupManifest.format)
        json.member("begun", CalendarTime.render(begun))
        json.member("ended", CalendarTime.render(ended))
        json.member("spread_ms", Int(spread.nanoseconds / 1_000_000))
        json.member("bytes", bytes)
        json.member("keys", keys)
        json.key("masters")
        json.beginArray()
        for shard in shards {
            json.beginObject()
            json.member("id", shard.id)
            json.member("address", shard.address)
            json.member("config_epoch", shard.configEpoch)
            json.member("slots", shard.slots.description)
            json.member("source_id", shard.sourceID)
            json.member("source", shard.source)
            json.member("replication_id", shard.replicationID)
            json.member("replication_offset", shard.offset)
            json.member("lag_bytes", shard.lag)
            json.member("file", shard.file)
            json.member("bytes", shard.bytes)
            json.member("sha256", shard.sha256)
            json.member("keys", shard.keys)
            json.member("keys_with_ttl", shard.expiring)
            if shard.databases.contains(where: { $0 > 0 }) {
                json.key("databases")
                json.beginArray()
                for number in shard.databases { json.int(number) }
                json.endArray()
            }
            json.member("redis_version", shard.redisVersion)
            json.member("begun", CalendarTime.render(shard.begun))
            json.member("ended", CalendarTime.render(shard.ended))
            json.endObject()
        }
        json.endArray()
        json.endObject()
    }

    init(begun: WallTime, ended: WallTime, shards: [Shard]) {
        self.begun = begun
        self.ended = ended
        self.shards = shards
    }

    /// Reads a manifest, which may have been altered: whatever is not as it should be is refused with its name.
    public init(json bytes: [UInt8]) throws(Failure) {
        do {
            self = try JSONDocument().parse(bytes) { root in
                guard root.kind == .object else { throw Failure(description: "is no object") }
                guard let format = root["format"]?.int else { throw Failure(description: "does not say its format") }
                guard format <= BackupManifest.format else {
                    throw Failure(
                        description:
                            "has format \(format), which a later version of muster wrote; this one reads up to \(BackupManifest.format)")
                }
                guard let masters = root["masters"]?.array, !masters.isEmpty else { throw Failure(description: "names no masters") }
                let shards = try masters.enumerated().map { i, element in try BackupManifest.shard(element, "masters[\(i)]") }
                let all = shards.reduce(SlotSet()) { $0.union($1.slots) }
                guard all == .all, shards.reduce(0, { $0 + $1.slots.count }) == HashSlot.count else {
                    throw Failure(description: "does not give each of the \(HashSlot.count) slots to exactly one master")
                }
                return BackupManifest(
                    begun: try BackupManifest.moment(root, "begun", "root"), ended: try BackupManifest.moment(root, "ended", "root"),
                    shards: shards)
            }
        } catch let failure as Failure { throw failure } catch { throw Failure(description: "cannot be read: \(error)") }
    }

    private static func shard(_ element: JSONElement, _ place: String) throws -> Shard {
        let file = try text(element, "file", place)
        guard !file.contains("/"), file.hasSuffix(".rdb") else { throw Failure(description: "\(place).file is no name of a snapshot") }
        var ranges: [ClosedRange<Int>] = []
        for word in try text(element, "slots", place).split(separator: " ") {
            guard let range = SlotSet.range(word) else {
                throw Failure(description: "\(place).slots: '\(word.prefix(32))' is no range of slots")
            }
            ranges.append(range)
        }
        return Shard(
            id: try text(element, "id", place), address: try text(element, "address", place),
            configEpoch: try number(element, "config_epoch", place),
            slots: SlotSet(ranges), sourceID: try text(element, "source_id", place), source: try text(element, "source", place),
            replicationID: try text(element, "replication_id", place), offset: try number(element, "replication_offset", place),
            lag: try number(element, "lag_bytes", place), file: file, bytes: try number(element, "bytes", place),
            sha256: try text(element, "sha256", place),
            keys: try number(element, "keys", place), expiring: try number(element, "keys_with_ttl", place),
            databases: try databases(element, place),
            redisVersion: try text(element, "redis_version", place),
            begun: try moment(element, "begun", place), ended: try moment(element, "ended", place))
    }

    private static func databases(_ element: JSONElement, _ place: String) throws(Failure) -> [Int] {
        guard let list = element["databases"] else { return [0] }
        let numbers = list.array?.map { $0.int ?? -1 } ?? []
        guard !numbers.isEmpty, numbers.allSatisfy({ $0 >= 0 }) else {
            throw Failure(description: "\(place).databases is no list of databases")
        }
        return numbers
    }

    private static func text(_ element: JSONElement, _ key: StaticString, _ place: String) throws(Failure) -> String {
        guard let value = element[key]?.string else { throw Failure(description: "\(place).\(key) is missing or no text") }
        return value
    }

    private static func number(_ element: JSONElement, _ key: StaticString, _ place: String) throws(Failure) -> Int {
        guard let value = element[key]?.int, value >= 0 else { throw Failure(description: "\(place).\(key) is missing or no whole number") }
        return value
    }

    private static func moment(_ element: JSONElement, _ key: StaticString, _ place: String) throws(Failure) -> WallTime {
        guard let value = element[key]?.string, let time = try? CalendarTime.parse(value) else {
            throw Failure(description: "\(place).\(key) is missing or no time")
        }
        return time
    }

    // MARK: a folder

    /// Reads the manifest of a backup.
    public static func read(folder: String) throws(ProvisioningFailure) -> BackupManifest {
        let path = "\(folder)/\(fileName)"
        do { return try BackupManifest(json: try Files.read(path)) } catch let error as SystemError {
            let hint = error.code == ENOENT ? ": \(folder) is no backup, or one that was never finished" : ""
            throw ProvisioningFailure(.local, "\(error)\(hint)")
        } catch { throw ProvisioningFailure(.refused, "\(path) \(error)") }
    }

    /// Reads every snapshot and compares it with what is said of it here. The first thing that does not fit is thrown. Returns the memory
    /// that the servers used.
    @discardableResult
    public func verify(folder: String, tell: @Sendable (String) -> Void) throws(ProvisioningFailure) -> Int {
        var memory = 0
        for shard in shards {
            let path = "\(folder)/\(shard.file)"
            let file = try BackupManifest.inspect(path, expected: shard.bytes)
            guard file.sha256 == shard.sha256 else {
                throw ProvisioningFailure(
                    .refused,
                    "\(path) is altered: its SHA-256 is \(file.sha256.prefix(16))…, and the manifest says \(shard.sha256.prefix(16))…")
            }
            guard file.header.keys == shard.keys else {
                throw ProvisioningFailure(
                    .refused, "\(path) has \(file.header.keys) keys; the manifest says \(shard.keys): the manifest is altered")
            }
            memory.addClamped(max(0, file.header.fields["used-mem"].flatMap { Int($0) } ?? 0))
            tell(
                "\(shard.file): \(ByteSize.text(shard.bytes)), \(shard.keys) keys, checksums "
                    + "fit\(file.hasChecksum ? "" : " (it has none of its own)")"
            )
        }
        return memory
    }

    static func inspect(_ path: String, expected: Int? = nil) throws(ProvisioningFailure) -> RDBFile {
        do { return try RDBFile(path, expected: expected) } catch { throw ProvisioningFailure(.refused, error.description) }
    }
}
