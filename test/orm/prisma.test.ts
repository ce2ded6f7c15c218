import { newPrismaClient } from './prisma-client.ts'
import { publishingWithin } from './suite.ts'

await publishingWithin('Prisma', async (url) => {
  const database = newPrismaClient(url)
  return {
    connection: database,
    transaction: (work) =>
      database.$transaction(async (tx: RawClient) => {
        const addUser = async (name: string) => void (await tx.$executeRawUnsafe('INSERT INTO users VALUES ($1)', name))
        await work({ tx, addUser })
      }),
    close: () => database.$disconnect(),
  }
})

interface RawClient {
  $executeRawUnsafe(query: string, ...values: unknown[]): Promise<number>
}
