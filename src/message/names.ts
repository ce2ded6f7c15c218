import { PosthornError } from '../errors.ts'
import { describe } from './duration.ts'

const NAME = /^[\w.:/-]{1,200}$/

/** Throws POSTHORN_INVALID_NAME unless `name` can name a topic, queue or subscription on every engine. */
export function checkName(kind: 'topic' | 'queue' | 'subscription', name: unknown): asserts name is string {
  if (typeof name === 'string' && NAME.test(name)) return
  throw new PosthornError('POSTHORN_INVALID_NAME', { kind, name: describe(name) })
}
