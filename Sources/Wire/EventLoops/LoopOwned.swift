/// Owns a value that belongs to a loop, and lets go of it there: wherever the last reference to the owner is dropped, the value's `deinit`
/// runs on its loop. Touching the value elsewhere traps.
///
/// Costs one object. A value whose loop has ended is never let go of.
public final class LoopOwned<Value>: @unchecked Sendable {
    // @unchecked: guarded by the check in `value`; in `deinit` nobody else has it.
    private var content: Value?
    private let loop: EventLoop

    public init(_ value: Value, on loop: EventLoop) {
        content = value
        self.loop = loop
    }

    public var value: Value {
        precondition(loop.isCurrent, "a loop's value was used outside its loop")
        return content!
    }

    private final class Carrier {
        let content: Value?
        init(_ content: Value?) { self.content = content }
    }

    deinit {
        if loop.isCurrent { return }
        // From here on the carrier has the only reference of ours, and it is given up on the loop, not by this thread.
        let carrier = Unmanaged.passRetained(Carrier(content))
        content = nil
        let address = UInt(bitPattern: carrier.toOpaque())
        loop.execute {
            if let pointer = UnsafeRawPointer(bitPattern: address) { Unmanaged<Carrier>.fromOpaque(pointer).release() }
        }
    }
}
