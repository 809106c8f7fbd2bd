import Basics
import Measurement

/// A source that is asked for figures, once a round.
public struct MeterSource: Sendable {
    /// Kinds of sources, by the names that the metrics use.
    public enum Kind: String, Sendable, CaseIterable {
        case process, page, gateway, store, lag
    }

    /// The source's id, which is unique; a source with another id is another one, whose figures begin anew.
    public let id: String
    /// The kind of the source.
    public let kind: Kind
    /// The keys that the source gives figures of; figures of other keys are not taken, and a key that it leaves out is told as absent.
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
