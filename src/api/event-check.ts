import type { CheckEvent } from '../consumer/settings.ts'
import type { StoredEvent } from '../engine.ts'
import { PosthornError } from '../errors.ts'
import { decodeEvent } from '../message/decode.ts'
import { encodeShared } from '../message/encode.ts'
import { serialize } from '../message/serialize.ts'
import { type Validation, validate } from '../message/validate.ts'
import type { Publishable } from '../publisher/publishable.ts'

/**
 * Validates events that were stored under another version of the schema than the subscriber's; the others were
 * validated by this very version when they were published. `undefined` where there is no schema to check against.
 */
export function eventCheck(definition: Publishable): CheckEvent | undefined {
  const { schema, dataschema } = definition
  if (schema === undefined) return undefined
  return (event) => {
    if (event.dataschema === dataschema) return event
    const validation = validate(schema, event.data)
    if (!(validation instanceof Promise)) return checked(definition, event, validation)
    return validation.then((settled) => checked(definition, event, settled))
  }
}

// The output goes through JSON as it does on publishing, so that handlers see one form of it whatever the version.
function checked(definition: Publishable, event: StoredEvent, validation: Validation): StoredEvent {
  if (!('output' in validation)) throw unfit(definition, event, validation.problem, validation.cause)
  const { data: _, ...attributes } = event
  const data = serialize(definition.name, validation.output)
  const own = `${JSON.stringify(attributes).slice(0, -1)},"data":${data}}`
  return decodeEvent(encodeShared(event.source, event.type, event.dataschema), own)
}

function unfit(definition: Publishable, event: StoredEvent, problem: string, cause: unknown): PosthornError {
  const found = event.dataschema ?? 'none'
  const details = { topic: definition.name, found, wanted: definition.dataschema ?? 'none', problem }
  return new PosthornError('POSTHORN_STORED_MESSAGE_INVALID', details, { cause })
}
