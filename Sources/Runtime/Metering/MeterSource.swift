import Basics
import Measurement

/// Something that is asked for figures, once a round.
public struct MeterSource: Sendable {
    /// The kinds, by the names that the metrics use.
    public enum Kind: String, Sendable, CaseIterable {
        case process, page, gateway, redis, lag
    }

    /// Unique; another id is another source, whose figures begin anew.
    public let id: String
    /// What is asked.
    public let kind: Kind
    /// What it gives figures of; of other keys nothing is taken, and what it leaves out is told as absent.
    public let keys: [MeterKey]
    let read: @Sendable () async -> [MeterKey: Result<MeterFigure, MeterFault>]

    /// `read` must end by itself within some seconds: a source that is at work is not asked again, and keeps its place among those that are
    /// asked at once.
    public init(
        id: String, kind: Kind, keys: [MeterKey], read: @escaping @Sendable () async -> [MeterKey: Result<MeterFigure, MeterFault>]
    ) {
        self.id = id
        self.kind = kind
        self.keys = keys
        self.read = read
    }
}
