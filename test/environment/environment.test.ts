import assert from 'node:assert/strict'
import { test } from 'node:test'
import { guardedLogger, linkSignals, OnceAMinute, systemClock } from '../../src/environment/index.ts'
import { VirtualClock } from '../../src/testing/virtual-clock.ts'

const timersThatHoldTheProcess = () => process.getActiveResourcesInfo().filter((kind) => kind === 'Timeout').length

test('a timer of the system clock keeps the process alive only when it is told to', () => {
  const before = timersThatHoldTheProcess()
  const passing = systemClock.setTimer(60_000, () => {})
  assert.equal(timersThatHoldTheProcess(), before)
  const holding = systemClock.setTimer(60_000, () => {}, { keepsProcessAlive: true })
  assert.equal(timersThatHoldTheProcess(), before + 1)
  passing.cancel()
  holding.cancel()
})

test('a guarded logger passes everything on, and nothing that is thrown', () => {
  const lines: unknown[][] = []
  const note =
    (level: string) =>
    (...parameters: unknown[]) => {
      lines.push([level, ...parameters])
      throw new Error('The disk is full.')
    }
  const logger = guardedLogger({
    debug: note('debug'),
    info: note('info'),
    warn: note('warn'),
    error: note('error'),
  })
  for (const level of ['debug', 'info', 'warn', 'error'] as const) logger[level]('something', { size: 1 })
  assert.deepEqual(
    lines,
    ['debug', 'info', 'warn', 'error'].map((level) => [level, 'something', { size: 1 }]),
  )
})

test('a guarded logger swallows rejections of asynchronous loggers', async () => {
  const rejecting = async () => {
    throw new Error('The collector is down.')
  }
  const logger = guardedLogger({ debug: rejecting, info: rejecting, warn: rejecting, error: rejecting })
  logger.warn('something')
  // An unhandled rejection would fail the test.
  await new Promise((resolve) => setImmediate(resolve))
})

test('linked signals abort with the first of them, for its reason, until they are unlinked', () => {
  const [one, other] = [new AbortController(), new AbortController()]
  const [linked, unlinked] = [linkSignals(one.signal, other.signal), linkSignals(one.signal, other.signal)]
  unlinked.unlink()
  other.abort('the reason')
  one.abort('another one')
  assert.equal(linked.signal.reason, 'the reason')
  assert.equal(unlinked.signal.aborted, false)
  assert.equal(linkSignals(new AbortController().signal, one.signal).signal.reason, 'another one')
})

test('what is said once a minute is said again after a minute', async () => {
  const clock = new VirtualClock()
  const warning = new OnceAMinute(clock)
  assert.deepEqual([warning.isDue(), warning.isDue()], [true, false])
  await clock.advance(59_999)
  assert.equal(warning.isDue(), false)
  await clock.advance(1)
  assert.deepEqual([warning.isDue(), warning.isDue()], [true, false])
})
