/// Chooses what leaves a full cache: S3-FIFO (Yang and others, "FIFO queues are all you need for cache eviction", SOSP 2023), by weight.
///
/// What is new enters a small queue, about a tenth of the whole. At its end it leaves, unless it was used twice meanwhile: then it goes to
/// the main queue. What left the small queue is remembered by its hash for a while, and enters the main queue when it comes again. At the
/// end of the main queue what was used goes back to the beginning, with one use less; what was not used leaves. So a scan of things that
/// are used once passes through the small queue and pushes nothing out of the main one.
///
/// A use moves nothing: it is counted by whoever owns the elements (up to `mostUses`), with one addition and no lock.
///
/// Cost: `insert` and `remove` O(1); `evict` O(1) over time, and at most `mostSteps` steps at once.
public struct S3FIFO<Element> {
    /// The place of one element, for `remove`.
    public typealias Place = Int32

    private struct Node {
        var element: Element?
        var previous: Place = -1
        var next: Place = -1
        var weight = 0
        var hash: UInt64 = 0
        var isMain = false
    }
    private struct Queue {
        /// The newest and the oldest.
        var head: Place = -1
        var tail: Place = -1
        var weight = 0
        var count = 0
    }

    /// Uses beyond this count no further.
    public static var mostUses: Int { 3 }
    /// Elements that one `evict` looks at before it takes the next one, used or not.
    public static var mostSteps: Int { 512 }

    private var nodes: [Node] = []
    private var free: [Place] = []
    private var small = Queue()
    private var main = Queue()
    private var ghosts = GhostList()

    public init() {}

    public var weight: Int { small.weight + main.weight }
    public var count: Int { small.count + main.count }

    /// Adds an element. `hash` tells it from others when it comes back after it has left; `weight` is 0 or more.
    public mutating func insert(_ element: Element, weight: Int, hash: UInt64) -> Place {
        let place: Place
        if let reused = free.popLast() {
            place = reused
        } else {
            place = Place(nodes.count)
            nodes.append(Node())
        }
        let isMain = ghosts.take(hash)
        nodes[Int(place)] = Node(element: element, weight: weight, hash: hash, isMain: isMain)
        pushFront(place)
        return place
    }

    /// Takes an element out, because it is replaced or purged. Each place once.
    public mutating func remove(_ place: Place) {
        unlink(place)
        nodes[Int(place)] = Node()
        free.append(place)
    }

    /// Chooses the next element to go and takes it out; nil when there is none. `uses` tells how often an element was used since it was last
    /// asked, and `setUses` sets that count.
    public mutating func evict(uses: (Element) -> Int, setUses: (Element, Int) -> Void) -> Element? {
        for step in 0... {
            let fromSmall = small.count > 0 && (main.count == 0 || small.weight.multipliedReportingOverflow(by: 10).partialValue >= weight)
            let place = fromSmall ? small.tail : main.tail
            guard place >= 0, let element = nodes[Int(place)].element else { return nil }
            let count = step < S3FIFO.mostSteps ? uses(element) : 0
            if fromSmall, count > 1 {
                unlink(place)
                nodes[Int(place)].isMain = true
                setUses(element, 0)
                pushFront(place)
            } else if !fromSmall, count > 0 {
                unlink(place)
                setUses(element, min(count, S3FIFO.mostUses) - 1)
                pushFront(place)
            } else {
                if fromSmall { ghosts.remember(nodes[Int(place)].hash, most: max(64, self.count)) }
                remove(place)
                return element
            }
        }
        return nil
    }

    private mutating func pushFront(_ place: Place) {
        if nodes[Int(place)].isMain { S3FIFO.push(place, &main, &nodes) } else { S3FIFO.push(place, &small, &nodes) }
    }

    private mutating func unlink(_ place: Place) {
        if nodes[Int(place)].isMain { S3FIFO.take(place, &main, &nodes) } else { S3FIFO.take(place, &small, &nodes) }
    }

    private static func push(_ place: Place, _ queue: inout Queue, _ nodes: inout [Node]) {
        nodes[Int(place)].previous = -1
        nodes[Int(place)].next = queue.head
        if queue.head >= 0 { nodes[Int(queue.head)].previous = place } else { queue.tail = place }
        queue.head = place
        queue.weight += nodes[Int(place)].weight
        queue.count += 1
    }

    private static func take(_ place: Place, _ queue: inout Queue, _ nodes: inout [Node]) {
        let previous = nodes[Int(place)].previous, next = nodes[Int(place)].next
        if previous >= 0 { nodes[Int(previous)].next = next } else { queue.head = next }
        if next >= 0 { nodes[Int(next)].previous = previous } else { queue.tail = previous }
        queue.weight -= nodes[Int(place)].weight
        queue.count -= 1
    }
}

/// Hashes of what has left, the oldest forgotten first.
private struct GhostList {
    private var order: [UInt64] = []
    private var start = 0
    private var known: Set<UInt64> = []

    /// Whether the hash is remembered; it is forgotten then.
    mutating func take(_ hash: UInt64) -> Bool { known.remove(hash) != nil }

    mutating func remember(_ hash: UInt64, most: Int) {
        if known.insert(hash).inserted { order.append(hash) }
        while order.count - start > most {
            known.remove(order[start])
            start += 1
        }
        if start > 4096, start > order.count / 2 {
            order.removeFirst(start)
            start = 0
        }
    }
}
