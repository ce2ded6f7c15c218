import type { StandardSchemaV1 } from '@standard-schema/spec'
import type { TopicConfig } from '../engine.ts'

/** What the publisher needs to know about a topic or queue. */
export interface Publishable {
  readonly name: string
  readonly schema: StandardSchemaV1 | undefined
  /** The URI of the schema's version, stored with every message. */
  readonly dataschema: string | undefined
  readonly config: TopicConfig
  readonly whenFull: 'reject' | 'wait'
  /** Overrides the connection's limit. */
  readonly maxMessageBytes: number | undefined
  /** The message's key, from the validated payload. */
  key(payload: unknown): string | undefined
}
