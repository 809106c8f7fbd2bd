import Basics
import Testing

/// Numbers from outside become integers and durations without ending the process, at every edge.
@Suite struct CheckedNumbersTests {
    @Test(
        arguments: [
            (0.0, 0), (-0.0, 0), (1.9, 1), (-1.9, -1), (.leastNonzeroMagnitude, 0), (-.leastNonzeroMagnitude, 0), (0x1p62, 1 << 62),
            (0x1p63, .max),
            (0x1.fffffffffffffp62, 0x7FFF_FFFF_FFFF_FC00),
            (-0x1p63, .min), (-0x1.0000000000001p63, .min), (1e19, .max), (1e300, .max), (-1e300, .min), (.infinity, .max),
            (-.infinity, .min),
            (.greatestFiniteMagnitude, .max), (.nan, 0), (.signalingNaN, 0),
        ] as [(Double, Int)])
    func aDoubleIsClamped(value: Double, expected: Int) { #expect(Int(clamped: value) == expected) }

    @Test func otherTypesHaveTheirOwnBounds() {
        #expect(UInt8(clamped: 255.9) == 255 && UInt8(clamped: 256) == 255 && UInt8(clamped: -0.5) == 0 && UInt8(clamped: -1) == 0)
        #expect(Int32(clamped: 2_147_483_648) == .max && Int32(clamped: -2_147_483_649) == .min)
        #expect(UInt64(clamped: 0x1p64) == .max && UInt64(clamped: 0x1p63) == 1 << 63 && UInt64(clamped: Double.infinity) == .max)
        #expect(Int(clamped: Double.nan, ifNaN: 7) == 7)
    }

    @Test func sumsAndProductsStayWithinTheType() {
        #expect(Int.max.addingClamped(1) == .max && Int.min.addingClamped(-1) == .min && 2.addingClamped(3) == 5)
        #expect(Int.min.subtractingClamped(1) == .min && Int.max.subtractingClamped(-1) == .max && UInt64(3).subtractingClamped(4) == 0)
        #expect(0.subtractingClamped(Int.min) == .max)
        #expect(Int.max.multipliedClamped(by: 2) == .max && Int.max.multipliedClamped(by: -2) == .min)
        #expect(Int.min.multipliedClamped(by: -1) == .max && Int.min.multipliedClamped(by: 2) == .min && 6.multipliedClamped(by: 7) == 42)
        #expect([UInt64.max, 1, 5].sumClamped() == .max && [Int]().sumClamped() == 0)
        var count = Int.max - 1
        count.addClamped(1)
        count.addClamped(1)
        #expect(count == .max)
    }

    @Test(arguments: [.nan, .infinity, -.infinity, 1e300, 9.3e9, -9.3e9] as [Double])
    func secondsThatNoClockHasAreToldOrClamped(seconds: Double) {
        #expect(Duration(seconds: seconds) == nil)
        let clamped = Duration(clampedSeconds: seconds).nanoseconds
        #expect(clamped == (seconds.isNaN ? 0 : seconds < 0 ? .min : .max))
    }

    @Test func secondsBecomeNanoseconds() {
        #expect(Duration(seconds: 1.5) == .milliseconds(1500) && Duration(seconds: -0.25) == .milliseconds(-250))
        #expect(Duration(nanosecondsAsDouble: 0x1p63) == nil && Duration(nanosecondsAsDouble: 12.7) == .nanoseconds(12))
        #expect(Duration(clampedSeconds: .leastNonzeroMagnitude) == .zero)
    }

    @Test func durationsSaturate() {
        let longest = Duration.nanoseconds(Int64.max)
        #expect(longest.addingClamped(.seconds(1)) == longest && Duration.seconds(2).addingClamped(.seconds(3)) == .seconds(5))
        #expect(longest.multipliedClamped(by: 2) == longest && Duration.seconds(2).multipliedClamped(by: 1.5) == .seconds(3))
        #expect(Duration.seconds(1).multipliedClamped(by: Double.nan) == .zero)
        #expect(Duration.seconds(Int64.max).nanoseconds == .max && Duration.seconds(Int64.min).nanoseconds == .min)
        #expect(Duration(secondsComponent: 9_223_372_036, attosecondsComponent: 900_000_000_000_000_000).nanoseconds == .max)
    }

    /// A deadline far away is far away: a sum that wraps would lie in the past, and what waits for it would end at once.
    @Test func timesDoNotWrap() {
        let now = MonotonicTime(nanoseconds: 5_000_000_000)
        #expect(now + .nanoseconds(Int64.max) > now && now + .seconds(1) == MonotonicTime(nanoseconds: 6_000_000_000))
        #expect(MonotonicTime(nanoseconds: .max) - MonotonicTime(nanoseconds: .min) == .nanoseconds(Int64.max))
        #expect(MonotonicTime(nanoseconds: .min) - MonotonicTime(nanoseconds: .max) == .nanoseconds(Int64.min))
        let wall = WallTime(milliseconds: .max - 1)
        #expect(wall + .seconds(1) == WallTime(milliseconds: .max))
        #expect(WallTime(milliseconds: .max) - WallTime(milliseconds: .min) == .nanoseconds(Int64.max))
        #expect(WallTime(milliseconds: 1500) - WallTime(milliseconds: 500) == .seconds(1))
    }
}
