import { crc32 } from 'node:zlib'

interface Checked {
  readonly topicId: number
  readonly partition: number
  readonly baseOffset: number
  readonly count: number
  readonly shared: string
  readonly data: string
}

/** CRC-32 of a record batch's data and of everything that says what the data is and where it belongs. */
export function batchChecksum({ topicId, partition, baseOffset, count, shared, data }: Checked): number {
  return crc32(data, crc32(`${topicId} ${partition} ${baseOffset} ${count} ${shared}`))
}
