import type { Figures } from './statistics.ts'

/** What a figure is compared with, if with anything: its name, and whether more is better. */
const ceilingOf: Readonly<Record<string, string>> = {
  publish_one_ms_p50: 'fdatasync_ms_p50',
  publish_one_ms_p99: 'fdatasync_ms_p99',
  publish_inflight_100_per_s: 'ceiling_publish_per_s',
  publish_inflight_per_s: 'ceiling_publish_per_s',
  publish_bulk_per_s: 'ceiling_publish_per_s',
  drain_per_s: 'ceiling_read_per_s',
  drain_10k_per_s: 'ceiling_read_per_s',
  drain_deep_per_s: 'ceiling_read_per_s',
  fanout12_deliveries_per_s: 'ceiling_read_per_s',
  ordered_drain_per_s: 'drain_per_s',
  ordered_drain_2_processes_per_s: 'drain_per_s',
  ordered_drain_100_keys_per_s: 'drain_per_s',
  ordered_drain_million_keys_per_s: 'drain_per_s',
  ordered_drain_million_keys_2_processes_per_s: 'drain_per_s',
  live_ms_p50: 'fdatasync_ms_p50',
  live_ms_p99: 'fdatasync_ms_p99',
}

/** A table for people. */
export function formatTable(figures: Figures): string {
  const rows = Object.entries(figures).map(([name, value]) => [name, formatFigure(name, value), ratio(figures, name)])
  const nameWidth = Math.max(...rows.map(([name]) => name!.length))
  const valueWidth = Math.max(...rows.map(([, value]) => value!.length))
  return rows
    .map(([name, value, comparison]) =>
      `${name!.padEnd(nameWidth)}  ${value!.padStart(valueWidth)}  ${comparison}`.trimEnd(),
    )
    .join('\n')
}

/** Rounded to what is worth reading. */
export function round(name: string, value: number): number {
  const decimals = name.endsWith('_per_s') || name.endsWith('_messages') ? 0 : name.includes('_ms_p') ? 3 : 2
  return Number(value.toFixed(decimals))
}

function formatFigure(name: string, value: number): string {
  return round(name, value).toLocaleString('en-US', { maximumFractionDigits: 3 })
}

function ratio(figures: Figures, name: string): string {
  const ceiling = ceilingOf[name]
  const value = figures[name]
  const limit = ceiling === undefined ? undefined : figures[ceiling]
  if (value === undefined || limit === undefined) return ''
  return `${(value / limit).toFixed(2)} x ${ceiling}`
}
