/// Owns a value that belongs to a loop, and releases it on that loop: wherever the last reference to the owner is dropped, the value's
/// `deinit` runs on its loop. Touching the value elsewhere traps.
///
/// Costs two objects. A value whose loop has ended is never released.
public final class LoopOwned<Value>: Sendable {
    private final class Carrier {
        let content: Value
        init(_ content: Value) { self.content = content }
    }

    /// Address of the carrier, which is retained once for this owner, and is looked at on the loop alone.
    private let address: UInt
    private let loop: EventLoop

    public init(_ value: Value, on loop: EventLoop) {
        address = UInt(bitPattern: Unmanaged.passRetained(Carrier(value)).toOpaque())
        self.loop = loop
    }

    private static func carrier(_ address: UInt) -> Unmanaged<Carrier> {
        guard let pointer = UnsafeRawPointer(bitPattern: address) else { preconditionFailure("an object has an address") }
        return Unmanaged.fromOpaque(pointer)
    }

    public var value: Value {
        precondition(loop.isCurrent, "a loop's value was used outside its loop")
        return LoopOwned.carrier(address).takeUnretainedValue().content
    }

    deinit {
        let address = address
        if loop.isCurrent { return LoopOwned.carrier(address).release() }
        loop.execute { LoopOwned.carrier(address).release() }
    }
}
