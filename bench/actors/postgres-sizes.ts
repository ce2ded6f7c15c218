import { openSession } from './postgres-session.ts'

export interface Size {
  readonly tablesMb: number
  readonly indexesMb: number
}

const BYTES_PER_MB = 1_048_576

const SIZES = `
SELECT coalesce(sum(pg_table_size(oid)), 0)::float8 AS tables, coalesce(sum(pg_indexes_size(oid)), 0)::float8 AS indexes
  FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'`

const BY_TABLE = `
SELECT relname AS name, pg_total_relation_size(oid)::float8 AS bytes
  FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r' ORDER BY 2 DESC LIMIT 5`

/** How large the files of a store are. */
export class PostgresSizes {
  async now({ url }: { url: string }): Promise<Size> {
    const client = await openSession(url)
    const { rows } = await client.query<{ tables: number; indexes: number }>(SIZES)
    await client.end()
    return { tablesMb: rows[0]!.tables / BYTES_PER_MB, indexesMb: rows[0]!.indexes / BYTES_PER_MB }
  }

  /** The largest tables with their indexes, as a line of text. */
  async largest({ url }: { url: string }): Promise<string> {
    const client = await openSession(url)
    const { rows } = await client.query<{ name: string; bytes: number }>(BY_TABLE)
    await client.end()
    return rows.map(({ name, bytes }) => `${name} ${Math.round(bytes / BYTES_PER_MB)} MB`).join(', ')
  }
}
