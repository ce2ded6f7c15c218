import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { parseDuration } from '../../src/message/duration.ts'

describe('durations', () => {
  const valid: [unknown, number][] = [
    [0, 0],
    [250, 250],
    [0.4, 0],
    ['250ms', 250],
    ['30s', 30_000],
    ['1.5s', 1_500],
    ['10m', 600_000],
    ['2h', 7_200_000],
    ['7d', 604_800_000],
  ]
  for (const [value, milliseconds] of valid) {
    test(`${JSON.stringify(value)} is ${milliseconds} ms`, () => {
      assert.equal(parseDuration(value, 'delay'), milliseconds)
    })
  }

  const invalid = [
    '30 parsecs',
    '30',
    '',
    's',
    '-5s',
    '1e3ms',
    ' 5s',
    '5S',
    -1,
    Number.NaN,
    Infinity,
    1e15,
    null,
    {},
    5n,
  ]
  for (const value of invalid) {
    test(`${typeof value} ${String(value)} is none`, () => {
      assert.throws(() => parseDuration(value, 'delay'), {
        code: 'POSTHORN_INVALID_OPTION',
        message: /option delay .* expected milliseconds/,
      })
    })
  }

  test('can be too short', () => {
    assert.equal(parseDuration('1s', 'lease', 1_000), 1_000)
    assert.throws(() => parseDuration('999ms', 'lease', 1_000), { message: /at least 1000 ms/ })
  })
})
