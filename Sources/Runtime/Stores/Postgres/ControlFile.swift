import Basics
import PostgresFailover

/// What a node's control file (`global/pg_control`) says, without starting anything: how it ended, where its last checkpoint is, on which
/// timeline. Its layout to here is the same from PostgreSQL 11 on.
struct ControlFile: Equatable {
    /// It was shut down in order, as a primary or as a standby.
    let isShutDown: Bool
    /// It is a standby's, which was killed or still runs.
    let isStandbyInterrupted: Bool
    let checkpoint: WALPosition
    let timeline: UInt32

    /// nil: there is no file, or none of a known version.
    init?(in data: String) {
        guard let bytes = try? Files.read(data + "/global/pg_control", from: 0, limit: 512) else { return nil }
        self.init(bytes)
    }

    init?(_ bytes: [UInt8]) {
        func number(_ place: Int, _ size: Int) -> UInt64 {
            (0..<size).reversed().reduce(0) { $0 << 8 | UInt64(bytes[place + $1]) }
        }
        // The version of the file's layout: 1100 is PostgreSQL 11's, 1300 that of 13 to 16, 1700 and 1800 those of their own.
        guard bytes.count >= 52, (1100...1899).contains(number(8, 4)) else { return nil }
        let state = number(16, 4)
        guard state <= 6 else { return nil }
        // 1: shut down; 2: shut down in recovery.
        isShutDown = state == 1 || state == 2
        // 5: in recovery by an archive or another server's log.
        isStandbyInterrupted = state == 5
        checkpoint = WALPosition(number(32, 8))
        timeline = UInt32(number(48, 4))
    }
}

/// The history of a timeline: where each one before it ended. PostgreSQL writes it when a standby is promoted.
struct TimelineHistory {
    private let ends: [(timeline: UInt32, at: WALPosition)]

    /// Lines of `number <tab> position <tab> reason`; others are comments.
    init(_ text: String) {
        ends = text.split(separator: "\n").compactMap { line in
            let fields = line.split(whereSeparator: { $0 == "\t" || $0 == " " })
            guard fields.count >= 2, let number = UInt32(fields[0]), let position = WALPosition(text: fields[1]) else { return nil }
            return (number, position)
        }
    }

    /// Where the log of `timeline` parts from that of the history's own; nil: it is no ancestor.
    func end(of timeline: UInt32) -> WALPosition? { ends.first { $0.timeline == timeline }?.at }
    /// Where the timeline itself began.
    var fork: WALPosition? { ends.last?.at }

    /// The file of a timeline's history, in `pg_wal`.
    static func file(of timeline: UInt32) -> String {
        let digits = String(timeline, radix: 16, uppercase: true)
        return String(repeating: "0", count: max(0, 8 - digits.count)) + digits + ".history"
    }
}
