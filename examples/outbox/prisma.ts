import { newPrismaClient } from '../../test/orm/prisma-client.ts'
import { type Recipe, userSignedUp } from './recipe.ts'

/** What is used here of the client that `prisma generate` writes. */
interface PrismaClient {
  $transaction(work: (tx: TransactionClient) => Promise<void>): Promise<void>
  $disconnect(): Promise<void>
}

interface TransactionClient {
  $executeRaw(query: TemplateStringsArray, ...values: readonly unknown[]): Promise<number>
}

export const withPrisma: Recipe = async (post, url) => {
  const prisma: PrismaClient = newPrismaClient(url)

  // #region sign-up
  async function signUp(email: string): Promise<void> {
    await prisma.$transaction(async (tx) => {
      await tx.$executeRaw`INSERT INTO users (email) VALUES (${email})`
      await post.publish(userSignedUp, { email }, { tx })
    })
  }
  // #endregion

  return { signUp, close: () => prisma.$disconnect() }
}
