import type { Backlog } from './backlog.ts'
import type { Outcome } from './client.ts'

export interface Phase {
  readonly title: string
  readonly outcomes: readonly Outcome[]
  /** Requests before the measured ones, while programs get warm. */
  readonly warmUp: readonly Outcome[]
}

export interface Delivery {
  readonly subscription: string
  readonly backlog: Backlog
  readonly drainedMs: number | undefined
  /** Sign-ups that the service has served, those that it should have served and has not, and repetitions. */
  readonly served: number
  readonly lost: number
  readonly repeated: number
}

export function failed(outcomes: readonly Outcome[]): number {
  return outcomes.filter(({ status }) => status < 200 || status > 299).length
}

/** The smallest latency that at least this part of the requests did not exceed. */
export function percentile(outcomes: readonly Outcome[], part: number): number {
  const sorted = outcomes.map(({ latencyMs }) => latencyMs).sort((left, right) => left - right)
  return sorted[Math.max(0, Math.ceil(sorted.length * part) - 1)] ?? 0
}

export function formatPhases(phases: readonly Phase[]): string {
  const rows = phases.map(({ title, outcomes }) => [
    title,
    count(outcomes.length),
    duration(percentile(outcomes, 0.5)),
    duration(percentile(outcomes, 0.99)),
    count(failed(outcomes)),
  ])
  return table([['endpoint', 'requests', 'p50', 'p99', 'failed'], ...rows])
}

export function formatDeliveries(deliveries: readonly Delivery[]): string {
  const rows = deliveries.map((delivery) => [
    delivery.subscription,
    count(delivery.backlog.peak),
    delivery.drainedMs === undefined ? 'not yet' : duration(delivery.drainedMs),
    count(delivery.served),
    count(delivery.lost),
    count(delivery.repeated),
    count(delivery.backlog.deadLetters),
  ])
  const head = ['subscription', 'backlog peak', 'drained in', 'served', 'lost', 'repeated', 'dead letters']
  return table([head, ...rows])
}

export const count = (value: number): string => value.toLocaleString('en-GB')

export function duration(ms: number): string {
  return ms < 1000 ? `${ms.toFixed(1)} ms` : `${(ms / 1000).toFixed(2)} s`
}

/** Aligns the first column to the left and the others to the right. */
function table(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_cell, column) => Math.max(...rows.map((row) => row[column]!.length)))
  const line = (row: readonly string[]) =>
    row.map((cell, column) => (column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]! + 3))).join('')
  const [head, ...body] = rows.map(line)
  return [head, '-'.repeat(head!.length), ...body].join('\n')
}
