import Basics
import EventLoops
import JSONCoding

/// Reads the bodies of requests, and writes large ones: small ones at once, all others on a thread of their own, one after the other. A body of a few KiB can hold
/// millions of parts (it may be packed, and parts may be empty); whatever reading one costs, the engine's loop goes on answering.
///
/// What one body may cost in all is bounded by whoever reads it (`WorkBudget`, records, bytes).
final class BodyReader: Sendable {
    /// Bodies up to this size are read at once: at worst some milliseconds. Packed ones always go to the thread.
    static let atOnce = 32 << 10

    private let here: LoopBound<JSONDocument>
    private let thread: EventLoop
    private let there: LoopBound<JSONDocument>

    /// `loop` is the engine's own.
    init(loop: EventLoop) throws(SystemError) {
        here = LoopBound(JSONDocument(), on: loop)
        thread = try EventLoop.start(name: "bodies")
        there = LoopBound(JSONDocument(), on: thread)
    }

    /// Ends the thread, after what it is reading.
    func stop() { thread.stop() }

    /// Call it on the engine's loop. `body` gets a parser that is its own while it runs.
    func read<T: Sendable, E: Error>(
        bytes: Int, packed: Bool, _ body: @escaping @Sendable (JSONDocument) throws(E) -> T
    ) async throws(E) -> T {
        if bytes <= BodyReader.atOnce, !packed { return try body(here.value) }
        let there = there, thread = thread
        let result: Result<T, E> = await withUnsafeContinuation { continuation in
            thread.execute {
                let result: Result<T, E>
                do throws(E) { result = .success(try body(there.value)) } catch { result = .failure(error) }
                continuation.resume(returning: result)
            }
        }
        return try result.get()
    }
}
